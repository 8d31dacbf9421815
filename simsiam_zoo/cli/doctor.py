"""`simsiam-zoo doctor`: what this machine has, what is wrong with it, and the way out."""

from __future__ import annotations

from dataclasses import asdict

import click

from simsiam_zoo.api.doctor import doctor as look_at_machine
from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import columns, print_json, print_line
from simsiam_zoo.errors import PluginError


@click.command()
@click.option("--no-run", is_flag=True, help="Leave the ten steps of training out.")
@options.as_json("what was found")
def doctor(no_run: bool, as_json: bool) -> int:
    """Look at Python, torch, the devices, caches and plugins, and train ten steps.

    Each line is ok, a warning or a problem, with the way out. The exit code is 3 where there is
    a problem, else 0. The ten steps are on scikit-learn's digits, and leave no run.
    """
    checks = look_at_machine(run=not no_run, quiet=as_json)
    problem = any(check.state == "problem" for check in checks)
    if as_json:
        print_json({"ok": not problem, "checks": [*map(asdict, checks)]})
        return PluginError.exit_code if problem else 0
    rows = [(check.state, check.name, check.said) for check in checks]
    for check, text in zip(checks, columns(rows, wrap=2), strict=True):
        print_line(text)
        if check.hint:
            print_line(*columns([("", check.hint)], wrap=1, indent=8))
    return PluginError.exit_code if problem else 0
