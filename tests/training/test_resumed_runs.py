"""A run that was interrupted, killed or damaged goes on and ends as if it had not been."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stopped_runs import Listening, Run, same, stop_after, weights

from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.meter import MACHINE
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.train import train


def test_a_run_interrupted_anywhere_ends_as_if_it_had_not_been(
    run: Run, tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    """Also in the middle of an epoch, with dropout-like noise and other worker counts."""
    settings = {"training.checkpoint_steps": 1, "backbone": "test_resnet:drop_path_rate=0.3"}
    settings |= {"evaluation.protocols": [], "evaluation.online_epochs": 0}
    settings |= {"logging.interval_steps": 5}  # a row is a mean over steps before and after the cut
    whole, result = run(settings, "whole")
    for step in range(1, 12):  # of 12: every step between two
        folder = tmp_path / f"cut-{step}"
        stop_after(tiny(settings), folder, step)
        again = train(
            tiny({**settings, "data.workers": int(step == 5)}),
            folder,
            resume=True,
            progress=Progress(),
        )
        assert same(weights(folder), weights(whole)), step
        assert (again["figures"], again["evidence"]) == (result["figures"], result["evidence"])
        rows = [row for row in read_metrics(folder) if "loss" in row]
        untimed = [{k: v for k, v in row.items() if k not in MACHINE} for row in rows]
        assert untimed == [
            {k: v for k, v in row.items() if k not in MACHINE}
            for row in read_metrics(whole)
            if "loss" in row
        ]


def test_a_resume_takes_the_threads_that_the_run_began_with(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other threads add in another order; where others are asked for, the run tells."""
    settings = {"training.checkpoint_steps": 1, "evaluation.protocols": [], "training.threads": 0}
    recipe = tiny(settings)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("simsiam_zoo.runtime.machine.available_cores", lambda: 1)
    stop_after(recipe, tmp_path / "run", 3)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    monkeypatch.setattr("simsiam_zoo.runtime.machine.available_cores", lambda: 2)
    progress = Listening()
    train(recipe, tmp_path / "run", resume=True, progress=progress)
    assert not [line for line in progress.said if "machine" in line]
    others = tiny({**settings, "training.threads": 2})
    train(others, tmp_path / "other", resume=True, progress=progress)
    (warning,) = (line for line in progress.said if "machine" in line)
    assert "machine.threads: 1 there, 2 here" in warning


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_process_goes_on_to_the_same_weights(
    run: Run, tiny: Callable[..., Recipe], tmp_path: Path, sign: signal.Signals
) -> None:
    settings = {"training.checkpoint_steps": 2, "training.epochs": 4, "data.workers": 1}
    whole, _ = run(settings, "whole")
    recipe, folder = tmp_path / "recipe.toml", tmp_path / "killed"
    recipe.write_text(tiny(settings).to_toml())
    command = [sys.executable, "-m", "simsiam_zoo", "train"]
    process = subprocess.Popen(
        [*command, "--recipe", str(recipe), "--out", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 300
    while not any(row["step"] >= 5 for row in read_metrics(folder)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(sign)
    _, err = process.communicate(timeout=200)
    if sign == signal.SIGKILL:
        assert process.returncode == -sign
    else:
        assert process.returncode == 75
        assert f"train --resume {folder}" in err
        assert "Traceback" not in err
    assert not (folder / "result.json").exists()

    train(tiny(settings), folder, resume=True, progress=Progress())
    assert same(weights(folder), weights(whole))


@pytest.mark.parametrize(("saves", "resume"), [(1, False), (100, False), (100, True)])
def test_processes_that_torchrun_starts_anew_go_on_and_so_does_resume_without_a_checkpoint(
    run: Run,
    tiny: Callable[..., Recipe],
    tmp_path: Path,
    monkeypatch: Any,
    saves: int,
    resume: bool,
) -> None:
    """From the last checkpoint, or anew where there is none yet."""
    settings = {"training.checkpoint_steps": saves}
    whole, _ = run(settings, "whole")
    folder = tmp_path / "lost"
    stop_after(tiny(settings), folder, 4)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(int(not resume)))
    train(tiny(settings), folder, resume=resume, progress=Progress())
    assert same(weights(folder), weights(whole))
    assert [row["step"] for row in read_metrics(folder) if "loss" in row] == list(range(1, 13))


def test_a_complete_run_is_not_run_again(run: Run) -> None:
    folder, result = run()
    before = (folder / "metrics.jsonl").read_bytes()
    assert run(resume=True) == (folder, result)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_of_another_identity_is_refused(
    tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    stop_after(tiny({"training.checkpoint_steps": 1}), folder, 3)
    changes = [
        ({"predictor": "none"}, r"predictor\.id"),
        ({"optim.lr": 2.0}, r"optim\.lr: 1\.0 there, 2\.0 here"),
        ({"training.precision": "bf16", "data.image_size": 32}, r"data\.image_size"),
    ]
    for changed, named in changes:
        with pytest.raises(InputError, match=f"another identity.*{named}"):
            train(tiny(changed), folder, resume=True, progress=Progress())


def test_a_torn_checkpoint_falls_back_and_two_torn_ones_end_the_run(
    tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe, folder = tiny({"training.checkpoint_steps": 1}), tmp_path / "run"
    stop_after(recipe, folder, 5)
    shutil.copytree(folder, tmp_path / "both", symlinks=True)

    said: list[str] = []
    progress = Progress()
    progress.say = said.append  # type: ignore[method-assign]
    newest = folder / "checkpoints" / "step-00000005.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    train(recipe, folder, resume=True, progress=progress)
    assert any("step-00000005.pt is damaged" in line for line in said)

    for path in (tmp_path / "both" / "checkpoints").glob("step-*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="damaged"):
        train(recipe, tmp_path / "both", resume=True, progress=Progress())
