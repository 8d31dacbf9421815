"""Real runs, small ones: what they leave behind, that they repeat, that they go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import timm
import torch
from safetensors import safe_open

from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.checkpoint import load_last
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.meter import MACHINE
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.setup import prepare
from simsiam_zoo.training.train import train

Run = Callable[..., tuple[Path, dict[str, Any]]]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state, _, _ = load_last(folder / "checkpoints")
    return state["siamese"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_leaves_everything_that_it_promises(run: Run, tiny: Callable[..., Recipe]) -> None:
    folder, result = run()

    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {
        ".lock",
        "recipe.toml",
        "lock.toml",
        "metrics.jsonl",
        "result.json",
        "correct.json",
        "curves.svg",
        "backbone.safetensors",
        "checkpoints/last.pt",
        "checkpoints/step-00000012.pt",
        "checkpoints/step-00000012.pt.sha256",
    }
    assert json.loads((folder / "result.json").read_text()) == result
    assert Recipe.make(None, folder / "recipe.toml") == tiny()
    lock = tomllib.loads((folder / "lock.toml").read_text())
    assert lock["identity"] == result["identity"] == prepare(tiny()).identity
    assert lock["parts"]["backbone"]["id"] == "simsiam-zoo/timm:test_resnet"
    drawn = ElementTree.parse(folder / "curves.svg").getroot()
    lines = list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) == 7 + 1 + 2  # a chart of what was measured twice; two views, three lr
    steps = [row["step"] for row in read_metrics(folder) if "loss" in row]
    assert steps == list(range(1, 13))


def test_the_backbone_that_is_left_loads_in_timm_and_gives_the_same_features(run: Run) -> None:
    folder, _ = run()
    file = folder / "backbone.safetensors"
    theirs = timm.create_model("test_resnet", num_classes=0, checkpoint_path=str(file)).eval()
    ours = timm.create_model("test_resnet", num_classes=0).eval()
    ours.load_state_dict(
        {
            key.removeprefix("backbone."): value
            for key, value in weights(folder).items()
            if key.startswith("backbone.")
        }
    )
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(theirs(x), ours(x))
    with safe_open(file, "pt") as opened:
        assert (
            "timm.create_model('test_resnet', num_classes=0)"
            in opened.metadata()["simsiam_zoo.python"]
        )


def test_the_same_seed_gives_the_same_weights_to_the_bit_and_another_does_not(run: Run) -> None:
    a, b, c = (
        run({"training.seed": seed}, name)[0] for name, seed in zip("abc", (5, 5, 6), strict=True)
    )
    assert same(weights(a), weights(b))
    assert not same(weights(a), weights(c))


def test_looking_and_logging_leave_the_weights_as_they_would_be(run: Run) -> None:
    a, _ = run({"evaluation.online_epochs": 1, "logging.interval_steps": 1}, "a")
    b, _ = run({"evaluation.online_epochs": 0, "logging.interval_steps": 100}, "b")
    assert same(weights(a), weights(b))


def test_the_callers_generator_is_left_alone(run: Run) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run()
    assert torch.equal(torch.rand(2), expected)


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


class _Cut(Exception):
    pass


def stop_after(recipe: Recipe, folder: Path, step: int) -> None:
    """Run until metrics of `step + 1` are due: they are written, and no checkpoint is."""

    class Cutting(Progress):
        def advance(self, done: int, text: str = "") -> None:
            if done > step:
                raise _Cut

    with pytest.raises(_Cut):
        train(recipe, folder, progress=Cutting())


class Listening(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_threads_that_nobody_named_are_those_that_were_fastest(
    tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simsiam_zoo.runtime.machine.available_cores", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before, tried = torch.get_num_threads(), []

    def chosen(settings: dict[str, object]) -> tuple[int, int]:
        setup = prepare(tiny(settings))
        return setup.runtime.threads, setup.lock["machine"]["threads"]

    def fastest(step: Callable[[], object], most: int) -> int:
        step()
        tried.append(most)
        return 2

    monkeypatch.setattr("simsiam_zoo.training.setup.fastest_threads", fastest)
    try:
        weights = prepare(tiny({"training.threads": 3})).siamese.state_dict()
        assert chosen({"training.threads": 0}) == (2, 2)
        tested = prepare(tiny({"training.threads": 0})).siamese.state_dict()
        assert all(torch.equal(weights[key], tested[key]) for key in weights)  # it leaves no trace
        assert tried == [3, 3]
        assert chosen({"training.threads": 3}) == (3, 3)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert chosen({"training.threads": 0}) == (3, 3)
        assert tried == [3, 3]
    finally:
        torch.set_num_threads(before)


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


def test_standing_still_is_not_learning(run: Run) -> None:
    """The untrained network has BN statistics too: an lr of nothing gains nothing on it."""
    for seed in (0, 1, 2):
        settings = {"optim.lr": 1e-12, "training.seed": seed, "training.epochs": 4}
        _, result = run(settings, f"still-{seed}")
        assert result["verdict"] == "no-gain", result["reason"]


def test_a_new_run_never_lands_on_another(run: Run, tmp_path: Path) -> None:
    run()
    with pytest.raises(InputError, match="holds another run"):
        run()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="no empty folder"):
        run(name="full")


def test_a_folder_that_not_all_processes_see_is_left_for_another_try(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "collect", lambda seen: [seen] if seen is not True else [1, 0])
        with pytest.raises(InputError, match="not all processes see"):
            run()
    run()


def test_the_predictors_lr_is_constant_and_the_others_follow_the_cosine(run: Run) -> None:
    folder, _ = run()
    rows = [row for row in read_metrics(folder) if "loss" in row]
    peak = 1.0 * 16 / 256
    assert [row["lr_predictor"] for row in rows] == [peak] * 12
    assert rows[0]["lr_backbone"] == peak
    assert rows[6]["lr_backbone"] == pytest.approx(peak / 2)
    assert rows[-1]["lr_backbone"] < 0.05 * peak
