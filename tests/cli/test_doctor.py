from __future__ import annotations

import json
import types
from pathlib import Path

import pytest

import simsiam_zoo.cli as cli
from simsiam_zoo.api import doctor
from simsiam_zoo.catalog import Catalog, Plugin
from simsiam_zoo.errors import InputError

FINE = Plugin("p", "m", "fine-zoo", "1.0", "v1")
BROKEN = Plugin("p", "m", "crash-zoo", "1.0", "v1", "broken", "ImportError: libcrash.so")
FUTURE = Plugin("p", "m", "future-zoo", "9.0", "v2", "incompatible", "written for plugin API v2")
OFF = Plugin("p", "m", "off-zoo", "1.0", "v1", "disabled", "SIMSIAM_ZOO_PLUGINS leaves it out")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("plugins", "state", "said"),
    [
        ((FINE, OFF), "ok", "1 usable of 2"),
        ((FINE, FUTURE), "warning", "future-zoo is incompatible"),
        ((FINE, FUTURE, BROKEN), "problem", "crash-zoo is broken"),
    ],
)
def test_what_a_plugin_lacks_is_told_in_one_line_with_the_command_that_says_why(
    monkeypatch, plugins, state, said
):
    monkeypatch.setattr(doctor, "catalog", lambda: Catalog(plugins))
    check = doctor.examine("plugins")
    assert check.state == state
    assert said in check.said
    assert (check.hint is None) == (state == "ok")
    assert state == "ok" or "simsiam-zoo plugin list" in check.hint


def test_a_cache_that_cannot_be_made_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "file" / "cache"))
    assert doctor.examine("cache").state == "problem"


def test_little_shared_memory_or_disk_is_a_warning(monkeypatch):
    assert doctor.examine("cache").state == "ok"
    usage = types.SimpleNamespace(total=64 * 2**20, used=0, free=64 * 2**20)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
    shm = doctor.examine("shared memory")
    if Path("/dev/shm").is_dir():
        assert shm.state == "warning"
        assert "--shm-size" in shm.hint
    assert doctor.examine("cache").state == "warning"


def test_ten_steps_are_trained_and_leave_nothing(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(doctor.TEN_STEPS, "data.workers", 0)
    check = doctor.examine("ten steps", doctor._ten_steps)
    assert check.state == "ok", check.said
    assert check.said.startswith("10 steps in ")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_run_that_fails_is_a_problem_with_its_own_way_out(monkeypatch):
    def fails(*_, **__):
        raise InputError("no such device", "Say cpu.")

    monkeypatch.setattr("simsiam_zoo.training.setup.prepare", fails)
    check = doctor.examine("ten steps", doctor._ten_steps)
    assert (check.state, check.said, check.hint) == ("problem", "no such device", "Say cpu.")
    monkeypatch.setattr("simsiam_zoo.training.setup.prepare", lambda *_, **__: 1 / 0)
    assert (
        doctor.examine("ten steps", doctor._ten_steps).said == "ZeroDivisionError: division by zero"
    )


@pytest.mark.parametrize(("plugin", "code"), [(FUTURE, 0), (BROKEN, 3)])
def test_the_exit_code_tells_a_problem_from_a_warning(monkeypatch, capsys, plugin, code):
    monkeypatch.setattr(doctor, "catalog", lambda: Catalog([plugin]))
    monkeypatch.setattr(doctor, "MACHINE", {"plugins": doctor.MACHINE["plugins"]})
    monkeypatch.delenv("COLUMNS", raising=False)
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", "--no-run"])
    assert caught.value.code == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["problem" if code else "warning", "plugins"]
    assert lines[1].startswith("        ")  # the way out, below its line


def test_doctor_looks_at_the_machine_and_at_real_plugins(zoo):
    run = zoo("doctor", "--no-run", "--json", plugins=["crash-zoo", "slow-zoo"])
    assert run.returncode == 3, run.stderr
    told = json.loads(run.stdout)
    assert not told["ok"]
    found = {check["name"]: check for check in told["checks"]}
    assert {"python", "torch", "devices", "precision", "cores", "cache"} <= found.keys()
    assert "crash-zoo is broken" in found["plugins"]["said"]
    assert "slow-zoo is" not in found["plugins"]["said"]
