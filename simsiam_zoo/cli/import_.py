"""`simsiam-zoo import`: a run from weights that were trained elsewhere."""

from __future__ import annotations

import json

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import columns, print_heading, print_line


@click.command(name="import", short_help="A run from weights trained elsewhere.")
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--out", metavar="FOLDER", required=True, help="The run's folder, new or empty.")
@options.part("backbone", "Which one it is, where the file does not say.")
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
    """Make a run of CHECKPOINT, so that it can be measured and gone on with.

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
    done = import_checkpoint(
        checkpoint, out, backbone=backbone, preset=preset, file=file, settings=settings
    )
    imported = done.run.lock["imported"]
    if as_json:
        found = {"prefix": done.prefix, "left_out": done.left_out}
        report = {"folder": out, "resumable": done.resumable, **found, **imported}
        click.echo(json.dumps(report, indent=2))
        return
    print_heading(out)
    rows = [
        ("from", f"{imported['source']}, sha256 {imported['sha256'][:16]}"),
        ("backbone", str(done.run.recipe.backbone.name)),
        ("weights", ", ".join(done.parts)),
    ]
    if done.prefix:
        rows.append(("found below", done.prefix))
    if done.left_out:
        rows.append(("left out", ", ".join(done.left_out)))
    if rest := [part for part in ("projector", "predictor") if part not in done.parts]:
        rows.append(("random", f"{' and '.join(rest)}, of which the file has none"))
    for line in columns(rows, wrap=1):
        print_line(line)
    if done.resumable:
        print_line(f"\nGo on training with: simsiam-zoo train --resume {out}")
    else:
        print_line(
            f"\nThe data set {done.run.recipe.dataset.name} is not at hand, so the run cannot be"
            " trained on.\nIf you want that, import again with --data."
        )
