"""`simsiam-zoo train`: the recipe from presets, files and flags; then one run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.completion import complete_component
from simsiam_zoo.errors import InputError
from simsiam_zoo.runtime.folders import new_run_folder

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


def _part_options(command: Any) -> Any:
    for kind, text in reversed(_PART_HELP.items()):
        command = options.part(kind, text)(command)
    return command


@click.command(short_help="Train, evaluate and judge one run.")
@options.preset("The recipe to start from (default: mnist-5k).")
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
@click.option(
    "--log",
    "loggers",
    metavar="SPEC",
    multiple=True,
    shell_complete=complete_component("logger"),
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
    assignments: tuple[str, ...],
    loggers: tuple[str, ...],
    stop_on_collapse: bool,
    out: str | None,
    init: str | None,
    resume: str | None,
    allow_bn_change: bool,
    locked: str | None,
    stream: bool,
    compiled: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    data: str | None,
    **flags: str | None,
) -> None:
    """Train a Siamese network, evaluate it on frozen features, and judge it.

    A SPEC is a component's name with parameters: mlp:hidden_dim=256,layers=2. `simsiam-zoo list`
    shows the names, `simsiam-zoo show KIND NAME` the parameters.

    \b
    Examples:
      simsiam-zoo train
      simsiam-zoo train --backbone densenet121 --predictor none
      simsiam-zoo train --preset digits --set optim.weight_decay=1e-4
      simsiam-zoo train --backbone resnet18 --init timm:pretrained
      simsiam-zoo train --resume runs/mnist-5k-seed0
    """
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.recipe.locked import read_locked, refuse_other_recipe, refuse_other_software

    lock = None if locked is None else read_locked(Path(locked))
    if lock is not None:  # first of all: another version may not know the recipe's names
        refuse_other_software(lock)
    given = {
        "data.stream": stream,
        "training.compile": compiled,
        "training.stop_on_collapse": stop_on_collapse,
        "logging.loggers": loggers,
    }
    texts = {_SHORT.get(flag, flag): text for flag, text in flags.items()}
    settings = options.settings_of(texts, assignments, data, given)
    if resume is None:
        recipe = Recipe.make(preset, file, settings)
        folder = Path(out) if out else new_run_folder(recipe.run_name())
    else:
        anew = {"--preset": preset, "--recipe": file, "--out": out, "--init": init}
        for name, value in anew.items():
            if value is not None:
                raise InputError(f"--resume goes on with the run as it is, so no {name}")
        folder = Path(resume)
        recipe = _resumed(folder, settings)
    if dry_run:
        from simsiam_zoo.cli.dry_run import dry_run as show

        if lock is not None:
            refuse_other_recipe(lock, recipe)
        show(recipe, init, as_json)
        return
    start = None
    if init is not None:
        from simsiam_zoo.training.start import read_start

        start = read_start(init, recipe)
        recipe = start.named_in(recipe)
    if lock is not None:
        refuse_other_recipe(lock, recipe)
    from simsiam_zoo.cli.result import print_result
    from simsiam_zoo.runtime.distributed import announced_rank
    from simsiam_zoo.training.run import train as run

    result = run(
        recipe,
        folder,
        resume=resume is not None,
        allow_bn_change=allow_bn_change,
        locked=lock,
        init=start,
        quiet=quiet,
    ).result
    if announced_rank() != 0:
        return
    assert result is not None  # else it had raised
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **result}, indent=2))
    else:
        print_result(result, folder)


def _resumed(folder: Path, settings: Mapping[str, object]) -> Any:
    """The recipe of the run in `folder`, with what may change on resume.

    Raises:
        InputError: there is no run, or a setting is one that decides what the run computes.
        PluginError: a part of the run comes from a plugin that is not here any more.
        DataError: the run's lock is damaged.
    """
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.recipe.lock import read_lock, refuse_missing
    from simsiam_zoo.recipe.recipe import may_change_on_resume

    refuse_missing(read_lock(folder))
    recipe = Recipe.of_run(folder / "recipe.toml", settings)
    for path in settings:
        if not may_change_on_resume(recipe, path):
            raise InputError(
                f"{path} decides what the run computes, so --resume keeps it as it is",
                "Train anew with another --out.",
            )
    return recipe
