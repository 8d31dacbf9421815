"""`simsiam-zoo evaluate`: figures of a run's, a checkpoint's or timm's features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.errors import InputError, ZooError

if TYPE_CHECKING:
    from simsiam_zoo.evaluation.target import EvalTarget
    from simsiam_zoo.runtime.progress import Progress


@click.command(short_help="Measure a run's, a checkpoint's or timm's features.")
@click.argument("source", metavar="RUN|CHECKPOINT|timm:NAME")
@options.data(
    "A dataset's name, or shards (default: the run's own); of several one table.", multiple=True
)
@options.spec(
    "--protocol",
    "protocols",
    kind="protocol",
    multiple=True,
    help="What to measure by (default: the recipe's); may be repeated.",
)
@click.option(
    "--untrained/--no-untrained",
    default=None,
    help="Measure the network as the run began with it too (default: with several --data, or where"
    " a protocol trains the network).",
)
@click.option(
    "--validation",
    metavar="SHARE",
    help="Measure on this share of the training images, held out, and not on the test images:"
    " to choose a protocol's lr by.",
)
@options.preset("Transform and data for a source that is no run.")
@options.device
@options.precision
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    metavar="N",
    help="Images at once, of each process.",
)
@options.plugin_files
@click.option("--out", metavar="FILE", help="The report, .json (default: in RUN/evaluations/).")
@options.as_json("the report")
@options.quiet
def evaluate(
    source: str,
    data: tuple[str, ...],
    protocols: tuple[str, ...],
    untrained: bool | None,
    validation: str | None,
    preset: str | None,
    device: str | None,
    precision: str | None,
    batch_size: int,
    out: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Take features of a frozen network once, and measure them by every protocol.

    Features are kept beside the run (or in the user's cache) for the next evaluation; nothing that
    the training wrote is changed. Each data set has its report; an error of one leaves the others'.

    \b
    Examples:
      simsiam-zoo evaluate RUN
      simsiam-zoo evaluate RUN --protocol knn --protocol low-shot
      simsiam-zoo evaluate RUN --data SHARDS --protocol knn:k=20
      simsiam-zoo evaluate RUN --data mnist-5k --data digits
      simsiam-zoo evaluate timm:resnet18 --data mnist-5k
    """
    texts = {"training.device": device, "training.precision": precision}
    texts["data.validation"] = validation
    given = {"evaluation.protocols": list(dict.fromkeys(protocols))}
    named: list[str | None] = [*dict.fromkeys(data)] or [None]
    settings = [options.settings_of(texts, data=each, given=given) for each in named]

    from simsiam_zoo.cli.text import print_report
    from simsiam_zoo.evaluation.target import open_target
    from simsiam_zoo.runtime import distributed
    from simsiam_zoo.runtime.folders import check_out
    from simsiam_zoo.runtime.progress import Progress, open_progress

    several = len(named) > 1
    if (path := None if out is None else Path(out)) is not None:
        check_out(path, "a report is", ".json")
    with distributed.joined():
        targets = distributed.together(
            lambda: [open_target(source, each, preset) for each in settings]
        )
        main = distributed.rank() == 0
        with open_progress(quiet) if main else Progress() as progress:
            targets = _beside(targets, untrained, progress)
            found = [
                _measured(target, batch_size, progress, None if several else path, several)
                for target in targets
            ]
    if not main:
        return 0
    if several:
        return _told(source, [str(each) for each in named], found, path, as_json)
    report, written = found[0]
    click.echo(json.dumps(report, indent=1)) if as_json else print_report(report, written)
    return 0


Found = tuple[dict[str, Any], Path | None]
"""A report, or an error, and where it was written."""


def _told(
    source: str, named: Sequence[str], found: Sequence[Found], path: Path | None, as_json: bool
) -> int:
    """Print reports on several data sets, and write them all to `path`; the first error's code."""
    from simsiam_zoo.cli.text import print_reports
    from simsiam_zoo.runtime.folders import save_text

    reports = [report | {"asked": each} for each, (report, _) in zip(named, found, strict=True)]
    whole = json.dumps({"source": source, "reports": reports}, indent=1)
    if path is not None:
        save_text(path, whole + "\n")
    click.echo(whole) if as_json else print_reports(reports, [each for _, each in found])
    codes = [report["error"]["exit_code"] for report in reports if "error" in report]
    return int(next(iter(codes), 0))


def _measured(
    target: EvalTarget, batch: int, progress: Progress, path: Path | None, several: bool
) -> Found:
    """The report, and where it was written: in `path`, or beside the run.

    Of `several` data sets an error is a report as well; but not on several processes, of which
    one may have failed alone.
    """
    from simsiam_zoo.charts.drawing import evaluation_sheet
    from simsiam_zoo.evaluation.evaluate import evaluate as measure
    from simsiam_zoo.evaluation.evaluate import new_report_path, write_report
    from simsiam_zoo.runtime import distributed
    from simsiam_zoo.runtime.folders import save_text

    try:
        report = measure(target, batch=batch, progress=progress)
    except ZooError as error:
        if not several or distributed.world_size() > 1:
            raise
        stated = {"message": error.what, "hint": error.hint, "exit_code": error.exit_code}
        return {"error": stated}, None
    if path is None and target.run is not None:
        path = new_report_path(target.run)
    if path is not None and distributed.rank() == 0:
        write_report(report, path)
        if (drawn := evaluation_sheet(report)) is not None:
            save_text(path.with_suffix(".svg"), drawn)
    return report, path


def _beside(
    targets: Sequence[EvalTarget], asked: bool | None, progress: Progress
) -> list[EvalTarget]:
    """The targets, which are of one network, with the untrained network where it is wanted.

    It needs the run's own data, for its BN statistics; without them it is left out, unless it was
    asked for: then InputError.
    """
    from dataclasses import replace

    from simsiam_zoo.evaluation.protocol import wants_images
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.training.conclude import untrained_backbone
    from simsiam_zoo.training.weights import load_init

    first = targets[0]
    if asked is None:
        protocols = (resolved.create() for resolved in first.recipe.protocols())
        wanted = len(targets) > 1 or any(map(wants_images, protocols))
    else:
        wanted = asked
    untrained = None
    if wanted and first.run is not None:
        recipe = Recipe.of_run(first.run / "recipe.toml")
        recipe = recipe.model_copy(update={"training": first.recipe.training})
        try:
            untrained = untrained_backbone(recipe, load_init(first.run))
        except ZooError as error:
            if asked:
                raise
            progress.say(f"the untrained network is not measured: {error.what}")
    elif asked:
        raise InputError(
            f"{first.source} is no run, and has no untrained network",
            "Evaluate timm:NAME:pretrained=false.",
        )
    return [replace(each, backbone=first.backbone, untrained=untrained) for each in targets]
