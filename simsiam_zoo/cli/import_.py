"""`simsiam-zoo import`: a run from weights that were trained elsewhere."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_columns, print_heading, print_json, print_line


@click.command(name="import")
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
    data: str | None,
    assignments: tuple[str, ...],
    as_json: bool,
    **asked: Any,
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
    run = import_checkpoint(checkpoint, out, settings=settings, **asked)
    found = run.lock["imported"]
    if as_json:
        print_json({"folder": out, **found})
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
    print_columns(rows, wrap=1)
    file, folder = shlex.quote(str(Path(out) / "recipe.toml")), shlex.quote(out)
    print_line(
        f"\nTrain on from these weights with: simsiam-zoo train --recipe {file} --init {folder}"
    )
