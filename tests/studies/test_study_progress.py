"""What is seen of a study under way."""

from __future__ import annotations

import io
import json
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from simsiam_zoo.studies.plan import StudyJob, plan_study
from simsiam_zoo.studies.running import (
    Running,
    StudyProgress,
    job_outcome,
    run_status,
    seconds_left,
)
from simsiam_zoo.studies.study import parse_study


def jobs(folder: Path, seeds: int = 20) -> list[StudyJob]:
    remove = {"part": "gradient", "action": "remove", "label": "[bold]no stop[/bold]\x1b[31m"}
    tree = {"base": {"preset": "digits"}, "seeds": range(seeds), "ablation": [remove]}
    return list(plan_study("seen", parse_study(tree, "it")).jobs(folder))


def written(job: StudyJob, *rows: dict) -> None:
    (job.folder / "run").mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (job.folder / "run" / "metrics.jsonl").write_text(
        text + '{"step": 9, "lo'
    )  # a line half written


def test_a_run_says_what_it_is_doing_and_how_long_it_will_take(tmp_path: Path) -> None:
    first, second, third, *_ = jobs(tmp_path)
    assert run_status(first) == "starting"
    row = {"step": 252, "epoch": 12, "loss": -0.5, "std_sqrt_d": 0.987, "images_per_second": 32.0}
    written(second, row, {"step": 252, "epoch": 12, "top1 knn (k=20, t=0.1)": 0.9})
    assert run_status(second).split("  ") == [
        *("epoch 13/24", "loss -0.500", "std 0.99", "knn 90.0 %", "speed 32 img/s"),
        "8 min left",  # 252 steps of 64
    ]
    written(third, {**row, "step": 504, "epoch": 24})
    assert run_status(third).endswith("evaluating")


def test_a_terminal_has_what_runs_below_what_has_ended(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("simsiam_zoo.studies.running._LIVE_SECONDS", 0)
    screen = io.StringIO()
    queue = jobs(tmp_path)
    state = Running(deque(queue[27:]), {"a": queue[25], "b": queue[26]})
    with StudyProgress(Console(file=screen, force_terminal=True, width=60)) as progress:
        progress.show(state)
        state.ended = [(job, 0) for job in queue[:25]]
        progress.show(state)
    text = screen.getvalue()
    assert text.rindex("seed 12: failed (exit code 0)") < text.rindex("seed 13: starting")
    assert "25 of 40 runs done" in text
    assert "\x1b[31m" not in text  # a label is text, whatever is in it
    assert "[bold]no" in text


def test_what_is_left_of_a_study_is_told_by_the_images_that_it_has_trained_on(tmp_path) -> None:
    queue = jobs(tmp_path, 4)  # eight of as many steps
    written(queue[3], {"step": 252})  # half of its 504
    state = Running(deque(queue[4:]), {"a": queue[3]}, [(job, 0) for job in queue[:3]])
    done = 0.5 * 0.9  # an evaluation follows
    assert seconds_left(state, 3, 60.0) == pytest.approx(60.0 * (5 - done) / done)
    assert seconds_left(state, 1, 60.0) == pytest.approx(60.0 * (5 - done) / (2 + done))
    assert seconds_left(Running(deque(queue)), 0, 60.0) is None
    # Those that stop at half of their epochs have less to do.
    halves = [replace(job, until=12) for job in queue]
    state = Running(deque(halves[4:]), {"a": halves[3]}, [(job, 0) for job in halves[:3]])
    assert seconds_left(state, 3, 60.0) == pytest.approx(60.0 * (5 - 0.9) / 0.9)
    assert run_status(halves[3]).endswith("evaluating")


def test_plain_lines_tell_each_end_once(tmp_path: Path) -> None:
    queue = jobs(tmp_path, 2)
    stream = io.StringIO()
    view, state = StudyProgress(Console(file=stream)), Running()
    state.ended = [(queue[0], 0)]
    state.waiting.extend(queue[1:])
    view.show(state)
    state.waiting.clear()
    state.ended.append((queue[1], -9))
    state.ended.append((queue[2], 75))
    view.show(state)
    view.show(state)
    first, *ends = stream.getvalue().splitlines()
    assert first == "4 runs, 1 of them complete already"
    assert len(ends) == 2
    assert "failed (exit code -9): see " in ends[0]
    queue[1].folder.mkdir(parents=True)
    (queue[1].folder / "status.json").write_text('{"exit_code": 2, "error": "no data\\n  way"}')
    assert job_outcome(queue[1], 2).startswith("failed (exit code 2): no data; see ")
    assert ends[1].endswith("seed 1: stopped")
