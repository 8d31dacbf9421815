"""A study for real, undisturbed and killed: the same results in the end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from simsiam_zoo.report.write import publish
from simsiam_zoo.studies.job import run_job
from simsiam_zoo.studies.plan import plan_study, write_plan
from simsiam_zoo.studies.study import read_study

STUDY = """
title = "Small"
base = { preset = "digits", backbone = "test_resnet", data.image_size = 12, training.epochs = 2, \
data.workers = 0, evaluation.baselines = false, evaluation.rank_samples = 64, \
training.checkpoint_steps = 3, evaluation.protocols = ["knn:k=5"] }
metrics = ["knn:k=3"]

[[ablation]]
part = "gradient"
action = "remove"
"""
TIMES = {"seconds", "seconds_training"}


def start(folder: Path, file: Path) -> subprocess.Popen[bytes]:
    words = ["ablate", str(file), "--out", str(folder), "--jobs", "2", "--quiet"]
    return subprocess.Popen(
        [sys.executable, "-m", "simsiam_zoo", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=file.parent,
    )


def undisturbed(folder: Path, file: Path) -> None:
    """The study, one run after another in this process."""
    plan = plan_study(*read_study(str(file)))
    write_plan(plan, folder)
    for job in plan.jobs(folder):
        assert run_job(job.folder, plan.metrics) == 0
    publish(folder)


def finish(process: subprocess.Popen[bytes]) -> bytes:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output.decode()
    return output


def settled(folder: Path) -> dict[str, Any]:
    """results.json without what is a time, and without where it was asked for."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items() if key not in TIMES}
        return [plain(each) for each in value] if isinstance(value, list) else value

    results = plain(json.loads((folder / "results.json").read_text()))
    del results["provenance"]["command"]
    return dict(results)


def jobs_of(study: int) -> list[int]:
    """Processes that run the study's jobs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == study:
            found.append(int(path.parent.name))
    return found


def wait_for(condition: Any, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_killed_at_random_and_run_again_a_study_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    file.write_text(STUDY)
    undisturbed(tmp_path / "calm", file)

    chance = random.Random(0)
    hard = tmp_path / "hard"
    metrics = "jobs/*/seed0/run/metrics.jsonl"
    parent = start(hard, file)
    wait_for(lambda: any(hard.glob(metrics)))
    time.sleep(chance.uniform(0, 0.5))
    for child in jobs_of(parent.pid)[:1]:  # its arm fails, and the other one goes on
        os.kill(child, signal.SIGKILL)
    time.sleep(chance.uniform(0, 1))
    parent.send_signal(signal.SIGKILL)  # its child is asked to stop, or is waited for
    parent.communicate()
    finish(start(hard, file))
    assert settled(hard) == settled(tmp_path / "calm")
