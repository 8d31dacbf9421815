"""`simsiam-zoo doctor`: what this machine has, what is wrong with it, and the way out."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from simsiam_zoo.cli.text import columns, print_line
from simsiam_zoo.errors import PluginError

if TYPE_CHECKING:
    from simsiam_zoo.cli.checks import Check


@click.command()
@click.option("--no-run", is_flag=True, help="Leave the ten steps of training out.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def doctor(no_run: bool, as_json: bool) -> int:
    """Look at Python, torch, the devices, caches and plugins, and train ten steps.

    Each line is ok, a warning or a problem, with the way out. The exit code is 3 where there is
    a problem, else 0. The ten steps are on scikit-learn's digits, in a folder that is removed.
    """
    from simsiam_zoo.cli.checks import machine_checks, plugin_checks, run_check

    # The plugins first: once torch is imported, nobody can tell who else imports it.
    checks = [*plugin_checks(), *machine_checks()]
    if not no_run:
        if not as_json:
            click.echo("training ten steps ...", err=True)
        checks.append(run_check())
    problem = any(check.state == "problem" for check in checks)
    if as_json:
        print_line(json.dumps({"ok": not problem, "checks": [*map(asdict, checks)]}, indent=2))
    else:
        _print(checks)
    return PluginError.exit_code if problem else 0


def _print(checks: list[Check]) -> None:
    rows = [(check.state, check.name, check.said) for check in checks]
    for check, text in zip(checks, columns(rows, wrap=2), strict=True):
        print_line(text)
        if check.hint:
            (hint,) = columns([("", check.hint)], wrap=1, indent=8)
            print_line(hint)
