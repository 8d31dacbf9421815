"""Policies that see batches ahead or keep something for each sample, in real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from simsiam_zoo.errors import DataError, StoppedError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.checkpoint import load_last
from simsiam_zoo.runtime.progress import Progress, StopRequest
from simsiam_zoo.training import batches
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.state import fill_rows
from simsiam_zoo.training.train import train

Run = Callable[..., tuple[Path, dict[str, Any]]]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_last(folder / "checkpoints")[0]["siamese"]
    return state


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def stopped_at(step: int, recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that a signal asks to stop after `step` steps; what it says."""
    stops: list[StopRequest] = []
    enter = StopRequest.__enter__

    def entered(stop: StopRequest) -> StopRequest:
        stops.append(stop)
        return enter(stop)

    class Stopping(Progress):
        def advance(self, done: int, text: str = "") -> None:
            if done == step - 1:  # heard after the next step
                stops[-1].requested = True

    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__enter__", entered)
        with pytest.raises(StoppedError) as stopped:
            train(recipe, folder, progress=Stopping())
    return str(stopped.value)


def test_alternation_of_one_step_is_simsiam_to_the_bit(run: Run) -> None:
    """With noise in the backbone: the targets draw what the step itself draws."""
    noisy = {"backbone": "test_resnet:drop_path_rate=0.3"}
    plain, _ = run(noisy, "plain")
    one, _ = run({**noisy, "gradient": "alternation:k=1"}, "one")
    assert same(weights(plain), weights(one))


def test_a_block_that_is_held_is_the_block_that_is_read_twice(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, _ = run({"gradient": "alternation:k=epoch"}, "held")
    monkeypatch.setattr(batches, "HELD_BYTES", 0)
    read, _ = run({"gradient": "alternation:k=epoch"}, "read")
    assert same(weights(held), weights(read))
    plain, _ = run({}, "plain")
    assert not same(weights(held), weights(plain))


@pytest.mark.parametrize(("step", "saved"), [(3, 0), (4, 4), (6, 4), (9, 8)])
def test_a_run_stopped_within_a_block_goes_on_from_its_start(
    run: Run,
    tiny: Callable[..., Recipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    saved: int,
) -> None:
    """12 steps in blocks of 4."""
    settings = {"gradient": "alternation:k=4", "backbone": "test_resnet:drop_path_rate=0.3"}
    whole, _ = run(settings, "whole")
    folder = tmp_path / "cut"
    assert f"saved at step {saved}" in stopped_at(step, tiny(settings), folder, monkeypatch)
    assert load_last(folder / "checkpoints")[0]["step"] == saved
    train(tiny(settings), folder, resume=True, progress=Progress())
    assert same(weights(folder), weights(whole))
    assert [row["step"] for row in read_metrics(folder) if "loss" in row] == list(range(1, 13))


def test_what_is_kept_for_each_sample_goes_on_too(
    run: Run, tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"gradient": "moving-average", "predictor": "none"}
    whole, _ = run(settings, "whole")
    said: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, text: said.append(text))
    folder = tmp_path / "cut"
    stopped_at(8, tiny(settings), folder, monkeypatch)
    assert "moving-average keeps 0.0127 MB of the samples" in said[0]  # 96 x (32 + 1) x 4 bytes
    train(tiny(settings), folder, resume=True, progress=Progress())
    assert same(weights(folder), weights(whole))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_rows_of_samples_are_shared_out_anew(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(11, 3, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        mine = {"average": torch.zeros_like(rows[rank::world])}
        fill_rows(mine, {"average": rows})
        assert torch.equal(mine["average"], rows[rank::world])
    for tables in ({}, {"average": rows[:5]}):
        with pytest.raises(DataError, match="lacks average"):
            fill_rows({"average": torch.zeros(12, 3)}, tables)
