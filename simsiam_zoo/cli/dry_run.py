"""`simsiam-zoo train --dry-run`: what would be run, and how large it is."""

from __future__ import annotations

import json

import click
import torch

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.model.build import Parts, build
from simsiam_zoo.model.siamese import parameter_counts
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.sizes import sizes


def dry_run(recipe: Recipe, init: str | None, as_json: bool) -> None:
    """Print the resolved recipe as TOML, with the sizes as comments; train nothing.

    The TOML is all there is on stdout but for comments, so that it can be piped into a file and
    fed back with `--recipe`. Parameters are counted on torch's meta device: no memory is spent, and
    no weights are read: those of `init` are named, and their digest is not known yet.
    """
    _, steps = sizes(recipe)
    with torch.device("meta"):
        siamese = build(
            Parts(**{kind: recipe.part(kind) for kind in PARTS}),
            image_size=recipe.data.image_size,
            steps_per_epoch=steps,
            steps=None if steps is None else steps * recipe.training.epochs,
        )
    counts = parameter_counts(siamese)
    total = None if steps is None else steps * recipe.training.epochs
    if as_json:
        found = {"parameters": counts, "steps_per_epoch": steps, "steps": total}
        click.echo(json.dumps({"recipe": recipe.to_dict(), "init": init, **found}, indent=2))
        return
    click.echo(recipe.to_toml(), nl=False)
    click.echo(f"\n# backbone features: {siamese.in_dim}, embedding z: {siamese.dim}")
    if init is not None:
        click.echo(f"# starts from: {init}; training.init will be its digest")
    for part, count in counts.items():
        click.echo(f"# parameters of the {part + ':':<11} {count:>11,}")
    click.echo(f"# steps per epoch: {_known(steps)}")
    click.echo(f"# steps: {_known(total)}")


def _known(number: int | None) -> str:
    return "unknown (the data is not at hand)" if number is None else f"{number:,}"
