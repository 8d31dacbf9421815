"""The kit as authors meet it: `simsiam-zoo plugin check`, and the options of the pytest plugin."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import click
import pytest
from installed import installed

from simsiam_zoo.catalog import KINDS
from simsiam_zoo.cli import COMMANDS, main
from simsiam_zoo.cli.plugin import PLUGIN_COMMANDS, plugin
from simsiam_zoo.runtime.machine import wait_briefly
from simsiam_zoo.testing.checks import PLUGIN, checks_of
from simsiam_zoo.testing.scaffold import write_package

DOCS = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()


def said(
    capfd: pytest.CaptureFixture[str], *words: str, code: int = 0
) -> pytest.CaptureResult[str]:
    with pytest.raises(SystemExit) as left:
        main(["plugin", *words])
    result = capfd.readouterr()
    assert left.value.code == code, result
    return result


def test_a_package_that_conforms_passes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wait_briefly()  # the first command that needs torch sets a variable, and not the kit
    write_package("right-zoo", "loss", tmp_path / "package")
    before = dict(os.environ)
    with installed(tmp_path / "package", tmp_path):
        out = said(capfd, "check", "Right_Zoo", "--fast").out
    assert re.search(r"^9 passed in", out, re.MULTILINE)
    assert dict(os.environ) == before


def test_a_package_that_is_not_installed_or_an_interrupt_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_package("apart-zoo", "loss")
    way = "Install it first, then name its distribution: pip install -e ./apart-zoo"
    assert way in said(capfd, "check", "apart-zoo", code=2).err
    monkeypatch.setattr(pytest, "main", lambda *_, **__: pytest.ExitCode.INTERRUPTED)
    assert said(capfd, "check", "simsiam-zoo", code=130).err.endswith("Interrupted.\n")


def test_what_a_package_does_wrong_is_told_with_the_way_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_package("checked-zoo", "loss", tmp_path / "package")
    body = tmp_path / "package" / "checked_zoo" / "loss.py"
    body.write_text(body.read_text().replace("scale: float)", "scale: float = 2.0)"))
    with installed(tmp_path / "package", tmp_path):
        told = said(capfd, "check", "checked-zoo", "--fast", code=3)
    assert "stated again by checked_zoo.loss:CheckedLoss, as 2.0" in told.out
    assert "The contract (parameters): " in told.out
    assert "The way out: " in told.out
    assert "1 failed" in told.out
    first, error = told.err.split("\n", 1)
    assert first.startswith("checking checked-zoo")
    assert error.startswith("Error: checked-zoo does not conform")
    assert "Traceback" not in told.out + told.err
    assert "loss checked has failed a check that this one rests on" in told.out


def test_the_package_that_the_docs_show_conforms(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "package").mkdir()
    for name, text in re.findall(r"^```\w+ file=(\S+)\n(.*?)^```", DOCS, re.M | re.S):
        (tmp_path / "package" / name).write_text(text)
    with installed(tmp_path / "package", tmp_path):
        out = said(capfd, "check", "leaky-zoo", "--fast").out
    assert re.search(r"^9 passed in", out, re.MULTILINE)


def test_the_docs_say_what_is_checked() -> None:
    for check in {check for kind in (*KINDS, PLUGIN) for check in checks_of(kind)}:
        assert f"`{check.name}`" in DOCS, check.name


def test_an_unknown_distribution_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    err = said(capfd, "check", "simsiam-zo", code=2).err
    assert "there is no plugin of simsiam-zo here" in err
    assert "Did you mean simsiam-zoo" in err


def test_without_pytest_the_way_out_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    err = said(capfd, "check", "simsiam-zoo", code=2).err
    assert "needs pytest" in err
    assert "python -m pip install pytest" in err


def test_a_command_that_is_none_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean check?" in said(capfd, "chek", code=2).err


def test_debug_shows_the_traceback_of_these_commands_too(capfd: pytest.CaptureFixture[str]) -> None:
    assert "Traceback" in said(capfd, "check", "no-such-zoo", "--debug", code=2).err


def test_the_group_lists_its_commands(capfd: pytest.CaptureFixture[str]) -> None:
    assert "plugin" in COMMANDS
    out = said(capfd, "--help").out
    assert all(f"  {name} " in out for name in PLUGIN_COMMANDS)
    for name in PLUGIN_COMMANDS:
        command = plugin.get_command(click.Context(plugin), name)
        assert command is not None
        assert command.name == name
