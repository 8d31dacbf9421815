"""`simsiam-zoo import`: a run from weights that were trained elsewhere."""

from __future__ import annotations

import json

import click

from simsiam_zoo.cli.complete import complete_component
from simsiam_zoo.cli.text import columns, print_heading, print_line
from simsiam_zoo.errors import InputError


@click.command(name="import", short_help="A run from weights trained elsewhere.")
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--out", metavar="FOLDER", required=True, help="The run's folder, new or empty.")
@click.option(
    "--backbone",
    metavar="NAME",
    shell_complete=complete_component("backbone"),
    help="Which one it is, where the file does not say.",
)
@click.option(
    "--preset",
    metavar="NAME",
    shell_complete=complete_component("preset"),
    help="The rest of the recipe (default: imagenet).",
)
@click.option("--recipe", "file", metavar="FILE", help="A TOML recipe, laid on the preset.")
@click.option(
    "--data",
    metavar="NAME|PATH|URL",
    shell_complete=complete_component("dataset"),
    help="A dataset's name, or a folder, pattern or URL of shards.",
)
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any key of the recipe by its dotted path; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was read as JSON.")
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

    CHECKPOINT is one of SimSiam's original release (backbone, projector and predictor), or a
    state dict of timm or torchvision (the backbone alone). Nothing in it is executed.

    \b
    Examples:
      simsiam-zoo import checkpoint_0099.pth.tar --out runs/original
      simsiam-zoo import resnet18.pth --backbone resnet18 --out runs/resnet18
    """
    from simsiam_zoo.exchange.importing import import_checkpoint
    from simsiam_zoo.recipe.layers import Text, dataset_spec

    settings: dict[str, object] = {} if data is None else {"dataset": dataset_spec(data)}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes KEY=VALUE, not {assignment!r}")
        if key in settings:
            raise InputError(f"{key} is set twice")
        settings[key] = Text(value)
    done = import_checkpoint(
        checkpoint, out, backbone=backbone, preset=preset, file=file, settings=settings
    )
    imported = done.run.lock["imported"]
    if as_json:
        report = {"folder": out, "resumable": done.resumable, **imported}
        click.echo(json.dumps(report, indent=2))
        return
    print_heading(out)
    rows = [
        ("from", f"{imported['source']}, sha256 {imported['sha256'][:16]}"),
        ("backbone", str(done.run.recipe.backbone.name)),
        ("weights", ", ".join(done.parts)),
    ]
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
