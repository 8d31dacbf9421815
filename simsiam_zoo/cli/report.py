"""`simsiam-zoo report`: a study's report anew, from the folders of its runs."""

from __future__ import annotations

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.ablate import print_study


@click.command()
@click.argument("study")
@options.opened("report")
@options.as_json("the results")
def report(study: str, opened: bool, as_json: bool) -> None:
    """Rebuild report.html, report.md, results.csv and results.json from what the runs left behind.

    STUDY is a study's folder. Nothing is trained, and nothing that the runs wrote is changed.
    """
    from simsiam_zoo.api.studies import write_report

    results = write_report(study)
    print_study(results, as_json)
    if opened:
        results.report.open()
