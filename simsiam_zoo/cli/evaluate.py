"""`simsiam-zoo evaluate`: figures of a run's, a checkpoint's or timm's features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_json, print_report, print_reports


@click.command()
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
    out: str | None,
    as_json: bool,
    **asked: Any,
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
    from simsiam_zoo.api.measure import evaluate_on
    from simsiam_zoo.runtime.folders import save_text
    from simsiam_zoo.runtime.machine import announced_rank

    named: list[str | None] = [*dict.fromkeys(data)] or [None]
    path = None if out is None else Path(out)
    found = evaluate_on(source, named, out=path, **asked)
    if announced_rank() != 0:
        return 0
    if len(found) == 1:
        print_json(found[0].report) if as_json else print_report(found[0])
        return 0
    reports = [each.report | {"asked": name} for name, each in zip(named, found, strict=True)]
    whole = {"source": source, "reports": reports}
    if path is not None:
        save_text(path, json.dumps(whole, indent=1) + "\n")
    if as_json:
        print_json(whole)
    else:
        print_reports(reports, [each.path for each in found])
    codes = [each.report["error"]["exit_code"] for each in found if "error" in each.report]
    return int(next(iter(codes), 0))
