from __future__ import annotations

import json
import types
from pathlib import Path

import pytest

import simsiam_zoo.cli as cli
from simsiam_zoo.catalog import Catalog, Plugin
from simsiam_zoo.cli import checks
from simsiam_zoo.errors import InputError

FINE = Plugin("p", "m", "fine-zoo", "1.0", "v1", imported_torch=False)
BROKEN = Plugin("p", "m", "crash-zoo", "1.0", "v1", "broken", "ImportError: libcrash.so")
FUTURE = Plugin("p", "m", "future-zoo", "9.0", "v2", "incompatible", "written for plugin API v2")
SLOW = Plugin("p", "slow_mod", "slow-zoo", "1.0", "v1", seconds=0.9, imported_torch=False)
EAGER = Plugin("p", "eager_mod", "eager-zoo", "1.0", "v1", imported_torch=True)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def with_plugins(monkeypatch):
    def use(*plugins: Plugin) -> dict[str, checks.Check]:
        monkeypatch.setattr(checks, "catalog", lambda: Catalog(plugins))
        return {check.name: check for check in checks.plugin_checks()}

    return use


def states() -> dict[str, str]:
    return {check.name: check.state for check in checks.machine_checks()}


def test_each_plugin_that_is_not_well_has_a_line_with_the_way_out(with_plugins):
    found = with_plugins(FINE, BROKEN, FUTURE, SLOW, EAGER)
    assert found.pop("plugins").said.startswith("3 usable of 5")
    assert {name: check.state for name, check in found.items()} == {
        "plugin crash-zoo": "problem",
        "plugin future-zoo": "warning",
        "plugin slow-zoo": "warning",
        "plugin eager-zoo": "warning",
    }
    assert 'disabled = ["crash-zoo"]' in found["plugin crash-zoo"].hint
    assert "900 ms" in found["plugin slow-zoo"].said
    assert "imports torch" in found["plugin eager-zoo"].said
    assert "eager_mod" in found["plugin eager-zoo"].said


def test_a_wrong_configuration_is_a_problem_and_no_crash(monkeypatch, tmp_path):
    (tmp_path / "broken.toml").write_text("[plugins")
    monkeypatch.setenv("SIMSIAM_ZOO_CONFIG", str(tmp_path / "broken.toml"))
    (check,) = checks.plugin_checks()
    assert (check.name, check.state) == ("plugins", "problem")
    assert "broken.toml is not TOML" in check.said


def test_a_cache_that_cannot_be_made_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "file" / "cache"))
    assert states()["cache"] == "problem"


def test_little_shared_memory_or_disk_is_a_warning(monkeypatch):
    assert states()["cache"] == "ok"
    usage = types.SimpleNamespace(total=64 * 2**20, used=0, free=64 * 2**20)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder: usage)
    (shm,) = [check for check in checks.machine_checks() if check.name == "shared memory"]
    if Path("/dev/shm").is_dir():
        assert shm.state == "warning"
        assert "--shm-size" in shm.hint
    assert states()["cache"] == "warning"


def test_the_sizes_of_the_caches_are_those_of_their_files(tmp_path):
    for folder, size in (("features", 3000), ("indexes/deep", 12)):
        (tmp_path / "cache" / folder).mkdir(parents=True)
        (tmp_path / "cache" / folder / "file").write_bytes(b"x" * size)
    (cache,) = [check for check in checks.machine_checks() if check.name == "cache"]
    assert ": features 3 kB, indexes 12 B; " in cache.said


def test_ten_steps_are_trained_and_leave_nothing(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(checks.TEN_STEPS, "data.workers", 0)
    check = checks.run_check()
    assert check.state == "ok", check.said
    assert check.said.startswith("10 steps and their evaluation in ")
    assert [*tmp_path.iterdir()] == []


def test_a_run_that_fails_is_a_problem_with_its_own_way_out(monkeypatch):
    def fails(*_, **__):
        raise InputError("no such device", "Say cpu.")

    monkeypatch.setattr("simsiam_zoo.training.run.train", fails)
    check = checks.run_check()
    assert (check.state, check.said, check.hint) == ("problem", "no such device", "Say cpu.")
    monkeypatch.setattr("simsiam_zoo.training.run.train", lambda *_, **__: 1 / 0)
    assert checks.run_check().said == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(("plugin", "code"), [(EAGER, 0), (BROKEN, 3)])
def test_the_exit_code_tells_a_problem_from_a_warning(monkeypatch, capsys, plugin, code):
    monkeypatch.setattr(checks, "catalog", lambda: Catalog([plugin]))
    monkeypatch.setattr(checks, "machine_checks", lambda: [])
    monkeypatch.delenv("COLUMNS", raising=False)
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", "--no-run"])
    assert caught.value.code == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["ok", "plugins"]
    assert lines[2].startswith("        ")  # the way out, below its line


def test_doctor_names_a_real_plugin_that_imports_torch(zoo):
    run = zoo("doctor", "--no-run", "--json", plugins=["eager-zoo", "slow-zoo"])
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["ok"]
    found = {check["name"]: check for check in told["checks"]}
    assert {"python", "torch", "devices", "precision", "cores", "cache"} <= found.keys()
    assert found["plugin eager-zoo"]["state"] == "warning"
    assert "imports torch when it is listed, by eager_zoo" in run.stdout
    assert "ms to load" in found["plugin slow-zoo"]["said"]
    assert "imports torch" not in found["plugin slow-zoo"]["said"]
