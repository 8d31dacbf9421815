"""The end of a run on one process, on two, and on one that is killed while it measures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from endings import end

from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.train import train

STEADY = ("figures", "evidence", "verdict", "reason")


@pytest.fixture
def trained(tiny: Callable[..., Recipe], tmp_path: Path) -> Path:
    """A run that has done its steps, and nothing after them."""
    folder = tmp_path / "trained"
    train(tiny({"evaluation.baselines": True}), folder, progress=Progress())
    for left in ("result.json", "backbone.safetensors", "curves.svg"):
        (folder / left).unlink()
    return folder


def result_of(run: Path) -> dict[str, Any]:
    result = json.loads((run / "result.json").read_text())
    return {key: result[key] for key in STEADY}


def test_two_processes_and_one_that_was_killed_find_what_one_does(
    trained: Path, tmp_path: Path
) -> None:
    one, two, killed = (
        Path(shutil.copytree(trained, tmp_path / name, symlinks=True))
        for name in ("one", "two", "killed")
    )
    codes, ((*batches,),) = end(one)
    assert codes == [0]
    assert sorted(map(len, batches)) == [16] * 10  # 96 to train on, 64 to test on
    expected = result_of(one)
    networks = {figure["network"] for figure in expected["figures"]}
    assert networks == {"trained network", "untrained network", "raw pixels"}

    codes, shares = end(two, world=2)
    assert codes == [0, 0]
    assert result_of(two) == expected  # to the bit
    assert [len(share) for share in shares] == [5, 5]
    taken = sorted(id for share in shares for batch in share for id in batch)
    assert taken == sorted([*range(96), *range(64)])  # each image once for all networks

    codes, _ = end(killed, killed_at=7)
    assert codes == [-9]
    assert not (killed / "result.json").exists()
    codes, (left,) = end(killed)
    assert codes == [0]
    assert left == batches[6:]  # the split that is on disk is not decoded again
    assert result_of(killed) == expected
    for run in (one, two, killed):
        assert not (run / "features").exists()
