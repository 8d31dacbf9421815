from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest

import simsiam_zoo.cli as cli
from simsiam_zoo.catalog import Catalog, Plugin
from simsiam_zoo.catalog.discovery import load_plugin
from simsiam_zoo.errors import InputError
from simsiam_zoo.plugin import Component, Family, hookimpl

BROKEN = Plugin("p", "m", "crash-zoo", "1.0", "v1", "broken", "ImportError: libcrash.so")
FUTURE = Plugin("p", "m", "future-zoo", "9.0", "v2", "incompatible", "written for plugin API v2")


def slow_plugin(seconds: float) -> Plugin:
    @hookimpl
    def zoo_components():
        yield Component("loss", "late", "a:B", "")
        yield Family("backbone", "lib", lambda: ["x"], "a:B")
        yield Component("backbone", "own", "a:B", "")

    def get() -> object:
        time.sleep(seconds)
        return SimpleNamespace(zoo_components=zoo_components)

    return load_plugin(Plugin("p", "late_mod", "late-zoo", "2.0", "v1"), get)


@pytest.fixture
def plugin_list(monkeypatch, capsys):
    def run(*plugins: Plugin, json: bool = False) -> str:
        known = Catalog(plugins)
        monkeypatch.setattr("simsiam_zoo.api.names.catalog", lambda: known)
        arguments = ["plugin", "list", *(["--json"] if json else [])]
        cli.root.main(arguments, standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_json_says_who_supplies_what_how_fast_and_what_is_wrong(plugin_list):
    late, crash, future = json.loads(plugin_list(slow_plugin(0.12), BROKEN, FUTURE, json=True))
    assert (late["distribution"], late["version"], late["api"]) == ("late-zoo", "2.0", "v1")
    assert late["supplies"] == {"backbone": ["lib:*", "own"], "loss": ["late"]}
    assert 120 <= late["load_ms"] < 5000
    assert late["slow"]
    assert (crash["status"], crash["cause"]) == ("broken", "ImportError: libcrash.so")
    assert (future["api"], future["status"], future["load_ms"]) == ("v2", "incompatible", None)


def test_the_text_tells_a_slow_import_in_milliseconds_and_a_cause_in_its_line(plugin_list):
    text = plugin_list(slow_plugin(0.12), BROKEN, FUTURE)
    assert [line.split() for line in text.splitlines()][1:3] == [
        ["2", "backbone", "lib:*,", "own"],
        ["1", "loss", "late"],
    ]
    head = text.splitlines()[0]
    assert head.split()[:3] == ["late-zoo", "2.0", "v1"]
    assert "ms, slow" in head
    assert "cause  ImportError: libcrash.so" in text
    assert "not loaded" in text


def test_a_quick_plugin_is_not_called_slow(plugin_list):
    assert "slow" not in plugin_list(slow_plugin(0))


def test_real_wheels_are_listed_with_their_states(zoo):
    run = zoo("plugin", "list", "--json", plugins=["crash-zoo", "swish-zoo"])
    assert run.returncode == 0
    rows = {row["distribution"]: row for row in json.loads(run.stdout)}
    assert rows["swish-zoo"]["supplies"] == {"projector": ["swish"]}
    assert rows["crash-zoo"]["status"] == "broken"
    assert len(rows["simsiam-zoo"]["supplies"]["backbone"]) >= 2


def test_an_unknown_command_is_told_with_the_nearest():
    with pytest.raises(InputError, match="Did you mean list"):
        cli.root.main(["plugin", "lst"], standalone_mode=False)
