"""Signals, and what the disk refuses."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simsiam_zoo.errors import InputError, StoppedError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.meter import Meter
from simsiam_zoo.training.run_folder import RunFolder, disk_trouble
from simsiam_zoo.training.setup import prepare
from simsiam_zoo.training.state import Checkpointer
from simsiam_zoo.training.train import train


def test_a_signal_while_the_run_is_evaluated_ends_it_resumable(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            time.sleep(30)
        except Exception as error:  # as whoever reads an image catches what that raises
            raise AssertionError("the request was taken for an error of the work") from error
        raise AssertionError("the request was not heard")

    with monkeypatch.context() as patch:
        patch.setattr("simsiam_zoo.training.train.conclude", interrupted)
        with pytest.raises(StoppedError, match="evaluated; its training is saved") as stopped:
            train(tiny(), tmp_path / "run", progress=Progress())
    assert stopped.value.exit_code == 75
    assert f"--resume {tmp_path / 'run'}" in (stopped.value.hint or "")
    result = train(tiny(), tmp_path / "run", resume=True, progress=Progress())
    assert result["steps"] == 12


def test_a_full_disk_is_waited_out_but_for_the_last_save(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, progress, said = prepare(tiny()), Progress(), list[str]()
    progress.say = said.append  # type: ignore[method-assign, assignment]
    folder = RunFolder(tmp_path, setup.recipe, setup.lock, setup.identity)
    checkpointer = Checkpointer(setup, folder, progress, Meter(setup))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("simsiam_zoo.training.state.save_checkpoint", full)
    checkpointer.save(4, 1.0, done=False, again=True)
    assert "no checkpoint at step 4: No space left on device" in said[0]
    assert checkpointer.saved is None
    with pytest.raises(OSError, match="No space left"):
        checkpointer.save(12, 2.0, done=True, again=False)


def test_what_the_disk_refuses_is_named(tmp_path: Path) -> None:
    run, shard = tmp_path / "run", tmp_path / "shards" / "train-0.tar"
    with (
        pytest.raises(InputError, match=r"train-0.tar: No such file.*\n.*--resume"),
        disk_trouble(run),
    ):
        shard.open("rb")
    with pytest.raises(InputError, match="run cannot be written any more"), disk_trouble(run):
        (run / "metrics.jsonl").open("a")
    with pytest.raises(InputError, match="run cannot be written any more: full"), disk_trouble(run):
        raise OSError(errno.ENOSPC, "full")
    with pytest.raises(FileNotFoundError), disk_trouble(run):
        raise FileNotFoundError("of no file, and so of no disk")
