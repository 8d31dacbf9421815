"""`simsiam-zoo evaluate`: figures of a run's, a checkpoint's or timm's features."""

from __future__ import annotations

import json
from pathlib import Path

import click

from simsiam_zoo.cli import options


@click.command(short_help="Measure a run's, a checkpoint's or timm's features.")
@click.argument("source", metavar="RUN|CHECKPOINT|timm:NAME")
@options.data(options.OTHER_DATA_HELP)
@options.spec(
    "--protocol",
    "protocols",
    kind="protocol",
    multiple=True,
    help="What to measure by (default: the recipe's); may be repeated.",
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
    data: str | None,
    protocols: tuple[str, ...],
    preset: str | None,
    device: str | None,
    precision: str | None,
    batch_size: int,
    out: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Take features of a frozen network once, and measure them by every protocol.

    The features are kept beside the run (or in the user's cache) for the next evaluation. Nothing
    that the training wrote is changed.

    \b
    Examples:
      simsiam-zoo evaluate RUN
      simsiam-zoo evaluate RUN --protocol knn --protocol low-shot
      simsiam-zoo evaluate RUN --data SHARDS --protocol knn:k=20
      simsiam-zoo evaluate timm:resnet18 --data mnist-5k
    """
    texts = {"training.device": device, "training.precision": precision}
    given = {"evaluation.protocols": list(dict.fromkeys(protocols))}
    settings = options.settings_of(texts, data=data, given=given)

    from simsiam_zoo.charts.drawing import evaluation_sheet
    from simsiam_zoo.cli.text import print_report
    from simsiam_zoo.evaluation.evaluate import evaluate as measure
    from simsiam_zoo.evaluation.evaluate import new_report_path, write_report
    from simsiam_zoo.evaluation.target import open_target
    from simsiam_zoo.runtime import distributed
    from simsiam_zoo.runtime.folders import check_out, save_text
    from simsiam_zoo.runtime.progress import Progress, open_progress

    if out is not None:
        check_out(Path(out), "a report is", ".json")
    with distributed.joined():
        subject = distributed.together(lambda: open_target(source, settings, preset))
        main = distributed.rank() == 0
        with open_progress(quiet) if main else Progress() as progress:
            report = measure(subject, batch=batch_size, progress=progress)
        if not main:
            return
        path = Path(out) if out is not None else None
        if path is None and subject.run is not None:
            path = new_report_path(subject.run)
        if path is not None:
            write_report(report, path)
            if (drawn := evaluation_sheet(report)) is not None:
                save_text(path.with_suffix(".svg"), drawn)
    if as_json:
        click.echo(json.dumps(report, indent=1))
    else:
        print_report(report, path)
