"""`simsiam-zoo report`: a study's report anew, from the folders of its runs."""

from __future__ import annotations

import json

import click


@click.command(short_help="Write a study's report anew, also while it runs.")
@click.argument("study")
@click.option("--open", "opened", is_flag=True, help="Open the report in the browser.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def report(study: str, opened: bool, as_json: bool) -> None:
    """Rebuild report.html, report.md, results.csv and results.json from what the runs left behind.

    STUDY is a study's folder. Nothing is trained, and nothing that the runs wrote is changed.
    """
    from simsiam_zoo.api.studies import write_report
    from simsiam_zoo.cli.ablate import print_results

    results = write_report(study)
    if as_json:
        click.echo(json.dumps(results.data, indent=1))
    else:
        print_results(results.data, results.folder)
    if opened:
        results.report.open()
