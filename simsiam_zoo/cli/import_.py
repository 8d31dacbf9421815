"""`simsiam-zoo import`: a run from weights that were trained elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import columns, print_heading, print_line


@click.command(name="import", short_help="A run from weights trained elsewhere.")
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--out", metavar="FOLDER", required=True, help="The run's folder, new or empty.")
@options.spec("--backbone", kind="backbone", help="Which one it is, where the file does not say.")
@options.preset("The rest of the recipe (default: imagenet).")
@options.recipe_file
@options.data(options.DATA_HELP)
@options.assignments
@options.as_json("what was read")
def import_(
    checkpoint: str,
    out: str,
    backbone: str | None,
    preset: str | None,
    file: str | None,
    data: str | None,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a run of CHECKPOINT, so that it can be measured and trained on.

    CHECKPOINT is one of SimSiam's original release (backbone, projector and predictor), a state
    dict of timm or torchvision (the backbone alone), also behind the prefix of another training
    library, or a run's backbone.safetensors. Nothing in it is executed.

    \b
    Examples:
      simsiam-zoo import checkpoint_0099.pth.tar --out runs/original
      simsiam-zoo import resnet18.pth --backbone resnet18 --out runs/resnet18
    """
    from simsiam_zoo.exchange.importing import import_checkpoint

    settings = options.settings_of({}, assignments, data)
    run = import_checkpoint(
        checkpoint, out, backbone=backbone, preset=preset, file=file, settings=settings
    )
    found = run.lock["imported"]
    if as_json:
        click.echo(json.dumps({"folder": out, **found}, indent=2))
        return
    print_heading(out)
    rows = [
        ("from", f"{found['source']}, sha256 {found['sha256'][:16]}"),
        ("backbone", str(run.recipe.backbone.name)),
        ("weights", ", ".join(found["parts"])),
    ]
    rest = [part for part in ("projector", "predictor") if part not in found["parts"]]
    rows += [("found below", found["prefix"])] if found["prefix"] else []
    rows += [("left out", ", ".join(found["left_out"]))] if found["left_out"] else []
    rows += [("random", f"{' and '.join(rest)}, of which the file has none")] if rest else []
    for line in columns(rows, wrap=1):
        print_line(line)
    print_line(
        "\nTrain on from these weights with:"
        f" simsiam-zoo train --recipe {Path(out) / 'recipe.toml'} --init {out}"
    )
