"""`benchmarks/gpu.py` on the CPU, so that no minute on a GPU is spent on a slip."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = "simsiam-zoo-multiview,simsiam-zoo-transfer,simsiam-zoo-vit"
SCRIPT = ROOT / "benchmarks" / "gpu.py"
PARTS = (
    *("tests", "losses", "resume", "step", "speed", "views", "protocols", "inputs", "runs"),
    *("vit", "fashion"),
)


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    """The script as a module."""
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec = importlib.util.spec_from_file_location("gpu_script", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return module


def rehearse(out: Path, *flags: str) -> tuple[subprocess.CompletedProcess[str], dict, str]:
    """The script's end, its JSON, and its page."""
    run = subprocess.run(
        [sys.executable, SCRIPT, "--rehearse", "--out", out, *flags],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "SIMSIAM_ZOO_PLUGINS": PACKAGES},
    )
    name = out / "performance-gpu"
    assert name.with_suffix(".json").is_file(), run.stderr
    found = json.loads(name.with_suffix(".json").read_text())
    return run, found, name.with_suffix(".md").read_text()


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_rehearsed_and_does_not_fail(name: str, tmp_path: Path):
    run, found, page = rehearse(tmp_path, "--only", name)
    assert run.returncode == 0, run.stderr
    assert found["rehearsal"] is True
    assert {"card", "torch, torchvision, timm"} <= found["machine"].keys()
    assert "the figures mean nothing" in page
    part = found["parts"][name]
    cases = part["cases"]
    assert {case: row["failed"] for case, row in cases.items() if "failed" in row} == {}
    assert (part["state"], part["error"]) == ("done", ""), run.stderr
    assert {"date", "commit"} <= part.keys()
    left_out = {case: row["skipped"] for case, row in cases.items() if "skipped" in row}
    assert set(left_out.values()) <= {"on CUDA alone"}, left_out
    if name == "resume":
        for case in ("killed and resumed, against undisturbed", "deterministic algorithms, twice"):
            assert cases[case]["same to the bit"] == "yes"  # as the CPU is
    if name == "fashion":
        for arm in ("base", "gradient none"):
            assert cases[arm]["verdict"]
            assert f"| {arm} |" in page


def test_a_part_that_fails_is_told_with_the_tracebacks_end_and_leaves_the_others(tmp_path: Path):
    run, found, page = rehearse(tmp_path, "--only", "losses,protocols", "--fail", "losses")
    assert run.returncode == 1
    assert "failed: losses" in run.stdout
    failed, other = found["parts"]["losses"], found["parts"]["protocols"]
    assert failed["state"] == "failed with exit code 1"
    assert failed["error"].splitlines()[-1] == "RuntimeError: the part losses was made to fail"
    assert failed["error"] in page
    assert other["state"] == "done"
    assert "kNN, cpu" in other["cases"]


def test_a_part_that_hangs_is_ended_with_all_that_it_started(gpu: ModuleType, tmp_path: Path):
    options = Namespace(rehearse=True, fail="", hang="speed")
    part = gpu.Planned("speed", "Images/s", gpu.LEAST)
    began = time.monotonic()
    found = gpu.run_apart(part, gpu.LEAST, options, tmp_path, None)
    assert gpu.LEAST <= time.monotonic() - began < 2 * gpu.LEAST
    assert found["state"] == "out of time"
    child = Path("/proc", (tmp_path / "speed" / "child").read_text(), "stat")
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() - began < 3 * gpu.LEAST, "it is alive still"
        time.sleep(0.1)


def test_a_case_that_fails_leaves_the_next_one(gpu: ModuleType, tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from gpu_parts.part import Part, Skipped
    from gpu_parts.table import cases

    part = Part(tmp_path, time.monotonic() + 10, rehearsal=True)
    part.case("halves", lambda: {"value": 1 / 2})
    part.case("zeros", lambda: {"value": 1 / 0})

    def skipped() -> dict[str, float]:
        raise Skipped("no such card")

    part.case("cards", skipped)
    part.case("long", lambda: {"value": 1.0}, needs=60)
    kept = json.loads((tmp_path / "cases.json").read_text())
    assert kept["halves"] == {"value": 0.5}
    assert kept["zeros"]["failed"].endswith("ZeroDivisionError: division by zero")
    assert kept["cards"] == {"skipped": "no such card"}
    assert "were left" in kept["long"]["skipped"]
    text = "\n".join(cases(kept))
    assert "| halves | 0.5 |" in text
    assert "ZeroDivisionError: division by zero" in text
    assert "- cards: left out; no such card" in text


def test_the_parts_fit_in_the_minutes_that_are_given(gpu: ModuleType):
    *first, last = gpu.PARTS
    assert tuple(part.name for part in gpu.PARTS) == PARTS
    assert last.name == "fashion"  # which takes what is left: a minute at least
    assert sum(part.seconds for part in first) <= 21 * 60


def test_what_an_earlier_go_found_on_such_a_machine_stays(gpu: ModuleType, tmp_path: Path):
    here = {"format": 1, "rehearsal": True, "machine": {"card": "one"}}
    assert gpu.found_earlier(tmp_path, here) == {}
    gpu.write(tmp_path, here | {"parts": {}})
    assert gpu.found_earlier(tmp_path, here) == {}
    (tmp_path / f"{gpu.NAME}.json").write_text(json.dumps(here | {"parts": {"step": {"a": 1}}}))
    assert gpu.found_earlier(tmp_path, here) == {"step": {"a": 1}}
    assert gpu.found_earlier(tmp_path, here | {"machine": {"card": "another"}}) == {}


def test_the_page_in_the_docs_is_that_of_the_json_beside_it(gpu: ModuleType):
    path = ROOT / "docs" / "performance-gpu.json"
    found = json.loads(path.read_text()) if path.is_file() else None
    assert path.with_suffix(".md").read_text() == gpu.page(found)


def test_without_a_gpu_it_says_how_to_rehearse(tmp_path: Path):
    run = subprocess.run(
        [sys.executable, SCRIPT, "--out", tmp_path],
        capture_output=True,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert run.returncode == 1
    assert "--rehearse" in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.iterdir())
