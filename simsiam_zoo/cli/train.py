"""`simsiam-zoo train`: the recipe from presets, files and flags; then one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simsiam_zoo.api.given import preset_of
from simsiam_zoo.catalog import PARTS
from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_json, print_published, print_result
from simsiam_zoo.errors import InputError, ZooError
from simsiam_zoo.runtime.folders import new_run_folder

if TYPE_CHECKING:
    from simsiam_zoo.recipe import Recipe

_PART_HELP = {
    "backbone": "Turns images into features: a timm model's name, or a component.",
    "projector": "Maps features to z; `none` removes it.",
    "predictor": "Maps z to p; `none` removes it.",
    "gradient": "Where gradient flows; `none` removes the stop-gradient.",
    "loss": "Compares p with z.",
    "augmentation": "Draws the views.",
}
_SHORT = {
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "lr": "optim.lr",
    "seed": "training.seed",
    "precision": "training.precision",
    "device": "training.device",
}
_VALUES = {
    "stream": "data.stream",
    "compiled": "training.compile",
    "stop_on_collapse": "training.stop_on_collapse",
    "loggers": "logging.loggers",
}


def key_of(flag: str) -> str | None:
    """The key of the recipe that a flag sets here, `--epochs` say; None where it sets none."""
    name = flag.lstrip("-").replace("-", "_")
    return {"data": "dataset", **_SHORT, **{part: part for part in _PART_HELP}}.get(name)


def _part_options(command: Any) -> Any:
    for kind, text in reversed(_PART_HELP.items()):
        command = options.spec(f"--{kind}", kind=kind, help=text)(command)
    return command


@click.command()
@options.preset("The recipe to start from (default: mnist-5k; of your own data: photos).")
@options.recipe_file
@_part_options
@options.data(options.DATA_HELP)
@click.option("--stream", is_flag=True, help="Read uncounted shards; needs data.steps_per_epoch.")
@click.option("--epochs", metavar="N", help="Passes over the training images.")
@click.option("--batch-size", metavar="N", help="Global batch.")
@click.option("--lr", metavar="X", help="Base lr; the lr used is base x global batch / 256.")
@click.option("--seed", metavar="N", help="Decides initialisation, order and views.")
@options.precision
@options.device
@click.option("--compile", "compiled", is_flag=True, help="Compile the network with torch.compile.")
@options.assignments
@options.spec(
    "--log",
    "loggers",
    kind="logger",
    multiple=True,
    help="Write the metrics there as well: tensorboard, csv; may be repeated.",
)
@click.option("--stop-on-collapse", is_flag=True, help="End a run whose collapse is plain.")
@click.option("--out", metavar="FOLDER", help="The run's folder (default: a new one in runs/).")
@click.option(
    "--init",
    metavar="RUN|timm:pretrained",
    help="Start from that run's weights, or from timm's for the backbone.",
)
@click.option("--resume", metavar="RUN", help="Go on with the run in this folder.")
@click.option(
    "--allow-bn-change",
    is_flag=True,
    help="Resume though BN will see another number of images at once.",
)
@click.option(
    "--locked",
    metavar="LOCK",
    help="Refuse a run that is not what this lock.toml says: recipe, parts, software, data.",
)
@options.plugin_files
@click.option("--dry-run", is_flag=True, help="Print the recipe and the sizes; train nothing.")
@options.as_json("the result")
@options.quiet
def train(
    preset: str | None,
    file: str | None,
    out: str | None,
    init: str | None,
    resume: str | None,
    allow_bn_change: bool,
    locked: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Train a Siamese network, evaluate it on frozen features, and judge it.

    A SPEC is a component's name with parameters: mlp:hidden_dim=256,layers=2. `simsiam-zoo list`
    shows the names, `simsiam-zoo show KIND NAME` the parameters.

    \b
    Examples:
      simsiam-zoo train
      simsiam-zoo train --backbone densenet121 --predictor none
      simsiam-zoo train --preset digits --set optim.weight_decay=1e-4
      simsiam-zoo train --data ./photos
      simsiam-zoo train --backbone resnet18 --init timm:pretrained
      simsiam-zoo train --resume runs/mnist-5k-seed0
    """
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.recipe.lock import read_locked, refuse_missing, refuse_other_recipe

    lock = read_locked(Path(locked)) if locked else None
    if lock is not None:  # first of all: without its plugins, names of the recipe are unknown
        refuse_missing(lock)
    settings = _settings(flags)
    if resume is None:
        preset = preset_of(settings, preset, file)
        recipe = Recipe.make(preset, file, settings)
        folder = Path(out) if out else new_run_folder(recipe.run_name())
    else:
        anew = {"--preset": preset, "--recipe": file, "--out": out, "--init": init}
        folder, recipe = Path(resume), _resumed(Path(resume), settings, anew)
    if lock is not None and (dry_run or init is None):  # weights are named once they are read
        refuse_other_recipe(lock, recipe)
    if dry_run:
        _print_recipe(recipe, init, as_json)
        return
    _tell_first(recipe, folder, resume is not None)
    how = {"resume": resume is not None, "allow_bn_change": allow_bn_change, "quiet": quiet}
    _run(recipe, folder, as_json, **how, locked=lock, init=init)


def _run(recipe: Recipe, folder: Path, as_json: bool, **how: Any) -> None:
    """Train, and on the first rank print what came out; `how`: further arguments of `train`."""
    from simsiam_zoo.runtime.machine import announced_rank
    from simsiam_zoo.training.run import train as run

    done = run(recipe, folder, **how)
    if announced_rank() != 0:
        return
    result = done.result or {}
    if as_json:
        print_json({"folder": str(folder), **result})
    else:
        print_result(result, folder)
        print_published(done.recipe)


def _tell_first(recipe: Recipe, folder: Path, goes_on: bool) -> None:
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.recipe.naming import run_summary
    from simsiam_zoo.runtime.progress import tell

    try:
        of = run_summary(recipe, Recipe.make(recipe.preset, measure=False))
    except ZooError:  # the preset of a run that goes on may be gone
        of = f"preset {recipe.preset}"
    tell(f"{folder}: {'goes on; ' if goes_on else ''}{of}")


def _settings(flags: dict[str, Any]) -> dict[str, object]:
    """What the flags set in the recipe: dotted paths and values."""
    given = {path: flags.pop(flag) for flag, path in _VALUES.items()}
    assigned, data = flags.pop("assignments"), flags.pop("data")
    texts = {_SHORT.get(flag, flag): text for flag, text in flags.items()}
    return options.settings_of(texts, assigned, data, given)


def _resumed(
    folder: Path, settings: Mapping[str, object], anew: Mapping[str, object | None]
) -> Recipe:
    """The recipe of the run in `folder`, with those `settings` that may change on resume.

    `anew`: flags that make a new run, and their values; they are refused.
    """
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.recipe.lock import read_lock, refuse_missing
    from simsiam_zoo.recipe.recipe import may_change_on_resume

    for flag, value in anew.items():
        if value is not None:
            raise InputError(f"--resume goes on with the run as it is, so no {flag}")
    refuse_missing(read_lock(folder))
    recipe = Recipe.of_run(folder / "recipe.toml", settings)
    for path in settings:
        if not may_change_on_resume(recipe, path):
            raise InputError(
                f"{path} decides what the run computes, so --resume keeps it as it is",
                "Train anew with another --out.",
            )
    return recipe


def _print_recipe(recipe: Recipe, init: str | None, as_json: bool) -> None:
    """Print the resolved recipe as TOML, as `--recipe` takes it, with the sizes as comments.

    Parameters are counted on torch's meta device. No weights are read: those of `init` are named.
    """
    import torch

    from simsiam_zoo.model.build import build
    from simsiam_zoo.model.siamese import parameter_counts

    _, steps = recipe.sizes()
    total = None if steps is None else steps * recipe.training.epochs
    with torch.device("meta"):
        siamese = build(
            {kind: recipe.part(kind) for kind in PARTS},
            image_size=recipe.data.image_size,
            channels=recipe.data.channels,
            steps_per_epoch=steps,
            steps=total,
        )
    counts = parameter_counts(siamese)
    if as_json:
        found = {"parameters": counts, "steps_per_epoch": steps, "steps": total}
        print_json({"recipe": recipe.to_dict(), "init": init, **found})
        return
    click.echo(recipe.to_toml(), nl=False)
    click.echo(f"\n# backbone features: {siamese.in_dim}, embedding z: {siamese.dim}")
    if init is not None:
        click.echo(f"# starts from: {init}; training.init will be its digest")
    for part, count in counts.items():
        click.echo(f"# parameters of the {part + ':':<11} {count:>11,}")
    for what, number in (("steps per epoch", steps), ("steps", total)):
        known = "unknown (the data is not at hand)" if number is None else f"{number:,}"
        click.echo(f"# {what}: {known}")
