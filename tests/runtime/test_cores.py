"""Cores that a process may use, threads that it takes, and how these wait for each other."""

import os
import subprocess
import sys

import pytest

from simsiam_zoo.runtime import machine


def test_cores_are_those_of_the_cgroup(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    assert machine.available_cores() == 12
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.available_cores() == 12
    (tmp_path / "cpu.max").write_text("450000 100000\n")
    assert machine.available_cores() == 5
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert machine.available_cores() == 2


@pytest.mark.parametrize(
    ("stated", "ranks", "threads"),
    [
        (None, 1, 6),
        (None, 4, 1),
        (None, 8, 1),  # never none
        ("3", 1, 3),
        ("9", 1, 9),  # more than cores, if somebody says so
        ("3,2", 1, 3),  # by level of nesting
        ("1", 1, 1),
        ("1", 2, 3),  # torchrun's own default
        ("2", 2, 2),
        ("", 1, 6),
        ("0", 1, 6),
        ("many", 1, 6),
    ],
)
def test_threads_are_what_the_environment_states_or_the_cores(monkeypatch, stated, ranks, threads):
    monkeypatch.setattr(machine, "available_cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if stated is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
    assert machine.default_threads(ranks) == threads


SAY = "print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.parametrize(
    ("code", "environment", "policy"),
    [
        ("from simsiam_zoo.cli import main; main(['list', '--json'])", {}, "10000"),
        ("import simsiam_zoo; simsiam_zoo.Recipe", {}, None),  # loads no torch
        ("machine.wait_briefly()", {}, "10000"),
        ("machine.wait_briefly()", {"OMP_WAIT_POLICY": "ACTIVE"}, None),
        ("machine.wait_briefly()", {"GOMP_SPINCOUNT": "500"}, "500"),  # the user's own way
        ("sys.modules['torch'] = None; machine.wait_briefly()", {}, None),  # too late
    ],
)
def test_threads_wait_briefly_unless_the_user_says_otherwise(code, environment, policy):
    start = "import atexit, os, sys; from simsiam_zoo.runtime import machine"
    said = run(f"{start}; atexit.register(lambda: {SAY}); {code}", environment).stdout
    assert said.split()[-1] == str(policy)


def test_openmp_itself_reads_it():
    """What the library reports of its settings, where torch was loaded from a notebook by us."""
    said = run("import simsiam_zoo; simsiam_zoo.train", {"OMP_DISPLAY_ENV": "verbose"}).stderr
    settings = [line for line in said.splitlines() if "GOMP_SPINCOUNT" in line]
    if not settings:
        pytest.skip("the OpenMP of this torch does not print its settings")
    assert all("10000" in line for line in settings)


def run(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    ways = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    clean = {key: value for key, value in os.environ.items() if key not in ways}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done
