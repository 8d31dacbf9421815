"""`simsiam-zoo train`: the recipe from presets, files and flags; then one run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from simsiam_zoo.cli.complete import complete_component
from simsiam_zoo.cli.plugin_file import plugin_option
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


def _component_options(command: Any) -> Any:
    command = click.option(
        "--data",
        metavar="NAME|PATH|URL",
        shell_complete=complete_component("dataset"),
        help="A dataset's name, or a folder, pattern or URL of shards.",
    )(command)
    for kind, text in reversed(_PART_HELP.items()):
        command = click.option(
            f"--{kind}", metavar="SPEC", shell_complete=complete_component(kind), help=text
        )(command)
    return command


@click.command(short_help="Train, evaluate and judge one run.")
@click.option(
    "--preset",
    metavar="NAME",
    shell_complete=complete_component("preset"),
    help="The recipe to start from (default: mnist-5k).",
)
@click.option("--recipe", "file", metavar="FILE", help="A TOML recipe, laid on the preset.")
@_component_options
@click.option("--stream", is_flag=True, help="Read uncounted shards; needs data.steps_per_epoch.")
@click.option("--epochs", metavar="N", help="Passes over the training images.")
@click.option("--batch-size", metavar="N", help="Global batch.")
@click.option("--lr", metavar="X", help="Base lr; the lr used is base x global batch / 256.")
@click.option("--seed", metavar="N", help="Decides initialisation, order and views.")
@click.option("--precision", metavar="NAME", help="auto, fp32, bf16 or fp16.")
@click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the network with torch.compile.")
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any key of the recipe by its dotted path; may be repeated.",
)
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
@plugin_option
@click.option("--dry-run", is_flag=True, help="Print the recipe and the sizes; train nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def train(
    preset: str | None,
    file: str | None,
    assignments: tuple[str, ...],
    loggers: tuple[str, ...],
    stop_on_collapse: bool,
    out: str | None,
    resume: str | None,
    allow_bn_change: bool,
    locked: str | None,
    stream: bool,
    compiled: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
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
    settings = _settings(assignments, flags, {key: value for key, value in given.items() if value})
    if resume is None:
        recipe = Recipe.make(preset, file, settings)
        folder = Path(out) if out else new_run_folder(recipe.run_name())
    else:
        for name, value in (("--preset", preset), ("--recipe", file), ("--out", out)):
            if value is not None:
                raise InputError(f"--resume takes its recipe from the run, so no {name}")
        folder = Path(resume)
        recipe = _resumed(folder, settings)
    if lock is not None:
        refuse_other_recipe(lock, recipe)
    if dry_run:
        from simsiam_zoo.cli.dry_run import dry_run as show

        show(recipe, as_json)
        return
    from simsiam_zoo.cli.result import print_result
    from simsiam_zoo.runtime.distributed import announced_rank
    from simsiam_zoo.training.run import train as run

    result = run(
        recipe,
        folder,
        resume=resume is not None,
        allow_bn_change=allow_bn_change,
        locked=lock,
        quiet=quiet,
    ).result
    if announced_rank() != 0:
        return
    assert result is not None  # else it had raised
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **result}, indent=2))
    else:
        print_result(result, folder)


def _settings(
    assignments: tuple[str, ...], flags: Mapping[str, str | None], given: Mapping[str, object]
) -> dict[str, object]:
    """Dotted paths and texts, from the short flags and from --set, which must not contradict.

    Args:
        assignments: of --set.
        flags: texts by flag, None where it was not given.
        given: values by dotted path, of the other flags.
    """
    from simsiam_zoo.recipe.layers import Text, dataset_spec

    settings = dict(given)
    for flag, value in flags.items():
        if value is None:
            continue
        if flag == "data":
            settings["dataset"] = dataset_spec(value)
        else:
            settings[_SHORT.get(flag, flag)] = Text(value)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes KEY=VALUE, not {assignment!r}")
        if key in settings:
            raise InputError(f"{key} is set twice")
        settings[key] = Text(value)
    return settings


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
