"""Runs that end badly: what they say, and what is kept."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from simsiam_zoo.errors import DivergedError, InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.checkpoint import load_last, save_checkpoint
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.setup import prepare
from simsiam_zoo.training.train import train


def test_a_run_that_diverges_says_so_and_keeps_no_bad_weights(
    tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    settings = {"optim.lr": 1e30, "training.checkpoint_steps": 1, "loss": "mse:normalize=false"}
    with pytest.raises(DivergedError, match="diverged"):
        train(tiny(settings), tmp_path / "run", progress=Progress())
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["verdict"] == "diverged"
    for path in (tmp_path / "run" / "checkpoints").glob("step-*.pt"):
        state = torch.load(path, weights_only=True)["siamese"]
        assert all(torch.isfinite(value).all() for value in state.values())


def test_a_full_disk_keeps_the_older_checkpoint_is_tried_again_and_ends_the_run_at_the_last(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, folder = tiny({"training.checkpoint_steps": 4}), tmp_path / "run"
    progress, said, tried = Progress(), list[str](), list[int]()
    progress.say = said.append  # type: ignore[method-assign]

    def full_from_step_8(folder: Path, step: int, state: dict[str, Any]) -> Path:
        tried.append(step)
        if step >= 8:
            full = errno.ENOSPC if step == 8 else errno.EFBIG  # a quota, a stick's file system
            raise OSError(full, "No space left on device")
        return save_checkpoint(folder, step, state)

    with monkeypatch.context() as patch:
        patch.setattr("simsiam_zoo.training.state.save_checkpoint", full_from_step_8)
        with pytest.raises(InputError, match=r"No space left.*\n.*--resume"):
            train(recipe, folder, progress=progress)
    assert tried == [4, 8, 12]
    assert any("no checkpoint at step 8: No space left" in line for line in said)
    assert load_last(folder / "checkpoints")[0]["step"] == 4
    assert train(recipe, folder, resume=True, progress=Progress())["steps"] == 12


def test_too_little_memory_in_a_step_is_a_users_error_that_says_what_takes_less(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_small(*given: Any, **named: Any) -> bool:
        torch.empty(1 << 50, dtype=torch.uint8)  # no machine has as much
        raise AssertionError("there was memory for that")

    monkeypatch.setattr("simsiam_zoo.training.loop.scaled_step", too_small)
    with pytest.raises(InputError, match=r"(?s)not enough memory for the run: .*--batch-size"):
        train(tiny(), tmp_path / "run", progress=Progress())


def test_bfloat16_is_not_used_where_the_cpu_gets_its_gradients_wrong(
    tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 16 px EfficientNet's last stage has a depthwise stride-2 convolution on 1x1 images.

    ResNet's, which is not depthwise, is a matrix product then, and no convolution.
    """
    monkeypatch.setattr("simsiam_zoo.runtime.device._cpu_has_bf16", lambda: True)
    depthwise = {"backbone": "test_efficientnet", "training.precision": "auto"}
    assert prepare(tiny(depthwise)).runtime.precision == "fp32"
    assert prepare(tiny({**depthwise, "data.image_size": 32})).runtime.precision == "bf16"
    assert prepare(tiny({"training.precision": "auto"})).runtime.precision == "bf16"
    with pytest.raises(InputError, match=r"blocks\.4\.0\.conv_dw on 1x1"):
        prepare(tiny({**depthwise, "training.precision": "bf16"}))
