"""`simsiam-zoo plugin check`: the conformance kit without a test folder."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from typing import Any
from unittest import mock

import click

from simsiam_zoo.cli.text import print_line
from simsiam_zoo.errors import InputError, PluginError


@click.command(name="check")
@click.argument("distribution", metavar="DIST")
@click.option("--fast", is_flag=True, help="Leave out the checks that take seconds each.")
@click.option(
    "--spec",
    "specs",
    multiple=True,
    metavar="KIND:SPEC",
    help="Check a component with these parameters: launcher:slurm:cluster=local.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
def check_package(distribution: str, fast: bool, specs: tuple[str, ...], as_json: bool) -> None:
    """Check every component that the package DIST supplies against the contract.

    A failure says what the contract asks and how to meet it; the exit code is then 3. The
    same checks run in a package's own tests: pytest -p simsiam_zoo.testing.
    """
    if importlib.util.find_spec("pytest") is None:
        raise InputError(
            "the conformance kit needs pytest, and it is not installed",
            "python -m pip install pytest",
        )
    from simsiam_zoo.testing.checks import PLUGIN, components_of

    components = list(components_of(distribution, specs))  # an unknown name is refused at once
    asked = ["--zoo-plugin", distribution]
    asked += [word for spec in specs for word in ("--zoo-spec", spec)]
    outcomes = run_kit([*asked, "--zoo-fast"] if fast else asked, quiet=as_json)
    failed = [row for row in outcomes if row["outcome"] == "failed"]
    if as_json:
        print_line(json.dumps(outcomes, indent=2))
    else:
        count = sum(tested.kind != PLUGIN for tested in components)
        print_line(_summary(outcomes, count))
    if failed:
        labels = list(dict.fromkeys(row["component"] for row in failed))
        raise PluginError(f"{distribution} does not conform: {', '.join(labels)}")


def run_kit(arguments: list[str], quiet: bool = False) -> list[dict[str, str]]:
    """Run the kit in this process; a row for each check; failures are printed unless `quiet`."""
    import pytest

    import simsiam_zoo.testing

    outcomes = _Outcomes(quiet)
    # Neither the user's options and plugins of pytest, nor tests in a folder: the checks alone.
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    with tempfile.TemporaryDirectory() as nothing, mock.patch.dict(os.environ, alone):
        plain = ["-p", "no:terminal", "-p", "no:cacheprovider", "-c", os.devnull]
        words = [*plain, "--rootdir", nothing, *arguments, nothing]
        code = pytest.main(words, plugins=[simsiam_zoo.testing, outcomes])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise PluginError(f"the conformance kit could not run (pytest's exit code {int(code)})")
    return outcomes.rows


class _Outcomes:
    """A pytest plugin that keeps what came of each check."""

    def __init__(self, quiet: bool) -> None:
        self.rows: list[dict[str, str]] = []
        self._quiet = quiet
        self._lines = sys.stdout  # pytest puts another in its place while a check runs

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called three times for each check; a skip or a failure may come of any."""
        if report.when != "call" and report.outcome == "passed":
            return
        _, component, check_name = report.nodeid.split("::")
        message = ""
        if report.outcome == "skipped":
            message = str(report.longrepr[2]).removeprefix("Skipped: ")
        elif report.outcome == "failed":
            message = report.longreprtext
        self.rows.append(
            {
                "component": component,
                "check": check_name,
                "outcome": str(report.outcome),
                "message": message,
            }
        )
        if not self._quiet and report.outcome == "failed":
            print(f"{message}\n", file=self._lines, flush=True)


def _summary(rows: list[dict[str, str]], components: int) -> str:
    counts = {
        outcome: sum(row["outcome"] == outcome for row in rows)
        for outcome in ("passed", "failed", "skipped")
    }
    words = [f"{count} {outcome}" for outcome, count in counts.items() if count]
    what = "component" if components == 1 else "components"
    lines = [f"{components} {what}, {len(rows)} checks: {', '.join(words)}"]
    reasons = [
        f"  skipped: {row['component']}, {row['check']}: {row['message']}"
        for row in rows
        if row["outcome"] == "skipped"
    ]
    return "\n".join(lines + reasons)
