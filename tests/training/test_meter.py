"""The figures of a row against their definitions, and what they cost."""

from __future__ import annotations

import mmap
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from simsiam_zoo.evaluation.geometry import alignment, spread, uniformity
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.training import meter as metering
from simsiam_zoo.training import train as training
from simsiam_zoo.training.meter import MACHINE, Meter, memory
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.setup import prepare

Run = Callable[..., tuple[Path, dict[str, Any]]]
SYNCHRONISING = ("item", "cpu", "tolist", "numpy", "__float__", "__bool__", "__int__", "__index__")


def z(seed: int, n: int = 16, d: int = 32) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_a_row_has_means_since_the_last_one_and_the_figures_of_its_own_step(tiny) -> None:
    setup = prepare(tiny())
    meter = Meter(setup)
    shown = [(torch.tensor(float(step)), [z(step), z(step + 10)]) for step in range(3)]
    for loss, views in shown[:2]:
        meter.add(loss, views)
    meter.add(*shown[2], torch.tensor(2.5))
    row = meter.row(3)

    assert row["gradient_norm"] == 2.5
    assert row["loss"] == pytest.approx(1.0)
    expected = sum(spread(views[1]).item() for _, views in shown) / 3
    assert row["std_sqrt_d"] == pytest.approx(expected, rel=1e-6)
    assert row["alignment_1_2"] == pytest.approx(alignment(z(2), z(12)).item(), rel=1e-6)
    assert row["uniformity_1"] == pytest.approx(uniformity(z(2)).item(), rel=1e-6)
    assert row["uniformity_2"] == pytest.approx(uniformity(z(12)).item(), rel=1e-6)

    meter.add(torch.tensor(7.0), [z(0)])  # the next row begins anew
    again = meter.row(4)
    assert again["loss"] == 7.0
    assert "gradient_norm" not in again


def test_figures_of_views_that_no_policy_states_are_left_out(tiny) -> None:
    setup = prepare(tiny({"gradient": "stop-gradient:pairs=2,sides=one"}))
    for views, expected in [
        ([], set()),
        ([z(0)], {"std_sqrt_d", "uniformity_1"}),
        (
            [z(place) for place in range(4)],
            {"std_sqrt_d", "alignment_1_2", "alignment_3_4"}
            | {f"uniformity_{place}" for place in (1, 2, 3, 4)},
        ),
    ]:
        meter = Meter(setup)
        meter.add(torch.tensor(1.0), views, torch.tensor(1.0))
        fixed = {"step", "epoch", "loss", "gradient_norm", *MACHINE}
        row = {key for key in meter.row(1) if not key.startswith("lr_")}
        assert row - fixed == expected


def test_the_time_the_loop_waits_for_data_is_its_share_of_all(tiny) -> None:
    meter = Meter(prepare(tiny()))

    def slow():
        for number in range(3):
            time.sleep(0.03)
            yield number

    began = time.monotonic()
    for _ in meter.waited_for(slow()):
        time.sleep(0.02)
        meter.add(torch.tensor(1.0), [])
    row = meter.row(3)
    elapsed = time.monotonic() - began
    assert 0.09 / elapsed - 0.02 <= row["data_wait"] <= 1 - 0.06 / elapsed + 0.02


def test_memory_is_what_the_process_holds() -> None:
    before = memory(torch.device("cpu"))
    # Fresh from the system: an allocator may have had room for a tensor.
    with mmap.mmap(-1, 50_000_000) as held:
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        assert memory(torch.device("cpu")) - before == pytest.approx(50e6, rel=0.2)


def test_the_device_is_waited_for_only_where_a_row_is_due(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every way from a tensor to Python is counted, but for the loader's own, between steps."""
    counts: list[int] = []
    now = 0

    def counting(name: str) -> Callable[..., Any]:
        original = getattr(torch.Tensor, name)

        def call(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            nonlocal now
            caller = sys._getframe(1).f_code.co_filename
            now += "simsiam_zoo/data/" not in caller.replace("\\", "/")
            return original(self, *args, **kwargs)

        return call

    add = Meter.add

    def add_and_note(self: Meter, *args: Any) -> None:
        nonlocal now
        add(self, *args)
        counts.append(now)
        now = 0

    with monkeypatch.context() as patch:
        patch.setattr(metering.Meter, "add", add_and_note)
        for name in SYNCHRONISING:
            patch.setattr(torch.Tensor, name, counting(name))
        assert torch.ones(1).item()
        assert now == 1  # the count counts
        now = 0
        patch.setattr(training, "conclude", lambda *_: {})
        run({"training.epochs": 3, "logging.interval_steps": 8, "evaluation.online_epochs": 0})
    # counts[k] is what happened between the add of step k and that of step k + 1
    assert len(counts) == 18
    after_rows = {1, 8, 16}
    assert [counts[step] for step in range(1, 18) if step not in after_rows] == [0] * 14
    assert {counts[step] for step in after_rows} == {1}


def test_a_run_writes_the_figures_and_they_are_those_of_its_network(
    run: Run, tiny: Callable[..., Recipe]
) -> None:
    folder, _ = run({"logging.interval_steps": 5})
    rows = [row for row in read_metrics(folder) if "loss" in row]
    assert [row["step"] for row in rows] == [1, 5, 10, 12]
    for row in rows:
        assert 0 < row["alignment_1_2"] < 4
        assert -4.2 < row["uniformity_1"] < 0
        assert row["uniformity_1"] != row["uniformity_2"]
        assert row["gradient_norm"] > 0
        assert 0 <= row["data_wait"] <= 1
        assert 0.05 < row["memory_gb"] < 50
