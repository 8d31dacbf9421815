"""A training step: micro-batches, clipping, recomputed activations; against plain torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_distributed_training import NORM_FREE, far_apart, run_script, weights
from test_lookahead import same, stopped_at
from torch import Tensor, nn

from simsiam_zoo.errors import InputError
from simsiam_zoo.model.losses import CosineLoss
from simsiam_zoo.model.siamese import StepOutput
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.checkpoint import load_last
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.batches import in_blocks, to_device, train_loader
from simsiam_zoo.training.loop import take_step
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.setup import Setup, prepare
from simsiam_zoo.training.train import setup_notes, train

Tiny = Callable[..., Recipe]
Run = Callable[..., tuple[Path, dict[str, Any]]]


def first_batch(setup: Setup) -> Any:
    return to_device(setup, next(iter(train_loader(setup, workers=0).batches())))


def steps_of(setup: Setup, count: int) -> list[tuple[Tensor, StepOutput, Tensor | None]]:
    """The first steps of a run, as the loop takes them."""
    setup.siamese.train()
    batches = in_blocks(setup, iter(train_loader(setup, workers=0).batches()), 0)
    loaded = zip(range(count), batches, strict=False)
    return [take_step(setup, to_device(setup, each), step, True) for step, each in loaded]


@pytest.mark.parametrize(
    "policy",
    [{}, {"gradient": "alternation:k=2"}, {"gradient": "moving-average", "predictor": "none"}],
    ids=["stop-gradient", "alternation", "moving-average"],
)
def test_without_batch_statistics_micro_batches_are_the_whole_batch(
    tiny: Tiny, policy: dict[str, object]
) -> None:
    states, taken = {}, {}
    for count in (1, 2, 4):
        pieces = {**NORM_FREE, **policy, "training.accumulate": count, "optim.clip_norm": 0.5}
        setup = prepare(tiny(pieces))
        taken[count] = steps_of(setup, 4)
        states[count] = setup.siamese.state_dict()
    for count in (2, 4):
        assert far_apart(states[1], states[count]) < 1e-9
        for whole, in_pieces in zip(taken[1], taken[count], strict=True):
            (loss, output, norm), (whole_loss, whole_output, whole_norm) = in_pieces, whole
            torch.testing.assert_close(loss, whole_loss, rtol=1e-9, atol=0)
            assert norm is not None
            torch.testing.assert_close(norm, whole_norm, rtol=1e-9, atol=0)
            for z, same_z in zip(output.embeddings, whole_output.embeddings, strict=True):
                torch.testing.assert_close(z, same_z, rtol=1e-9, atol=1e-12)


def test_two_processes_of_micro_batches_compute_what_one_does(tmp_path: Path, tiny: Tiny) -> None:
    settings = {**NORM_FREE, "training.epochs": 1}
    whole = tiny(settings).to_toml()
    pieces = tiny({**settings, "training.accumulate": 3}).to_toml()
    run_script(tmp_path / "1", 1, [[whole, "run", False, False]])
    run_script(tmp_path / "2", 2, [[pieces, "run", False, False]])
    assert far_apart(weights(tmp_path / "1" / "run"), weights(tmp_path / "2" / "run")) < 1e-9


def test_a_run_with_micro_batches_goes_on_within_an_epoch_to_the_bit(
    tiny: Tiny, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"training.accumulate": 2, "backbone": "test_resnet:drop_path_rate=0.3"}
    whole, _ = run(settings, "whole")
    assert "saved at step 5" in stopped_at(5, tiny(settings), tmp_path / "cut", monkeypatch)
    train(tiny(settings), tmp_path / "cut", resume=True, progress=Progress())
    assert same(weights(whole), weights(tmp_path / "cut"))
    rows = [
        [
            {key: row[key] for key in ("step", "loss", "std_sqrt_d")}
            for row in read_metrics(folder)
            if "loss" in row
        ]
        for folder in (whole, tmp_path / "cut")
    ]
    assert rows[0] == rows[1]


def test_bn_sees_a_micro_batch_and_the_run_and_its_lock_say_so(tiny: Tiny, tmp_path: Path) -> None:
    said: list[str] = []
    progress = Progress()
    progress.say = said.append  # type: ignore[method-assign, assignment]
    recipe = tiny({"training.accumulate": 4, "training.epochs": 1})
    train(recipe, tmp_path / "run", progress=progress)
    assert any("4 micro-batches; BN's statistics are over 4 images" in line for line in said)
    assert "bn_batch = 4" in (tmp_path / "run" / "lock.toml").read_text()
    assert prepare(recipe).identity != prepare(tiny({"training.epochs": 1})).identity

    setup = prepare(recipe)
    batch, seen = first_batch(setup), list[int]()
    norm = next(m for m in setup.siamese.modules() if isinstance(m, nn.BatchNorm2d))
    norm.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    setup.siamese.train()
    _, output, _ = take_step(setup, batch, 0, want_norm=False)
    assert seen == [4] * 8  # two views of each micro-batch
    assert [len(z) for z in output.embeddings] == [16, 16]


def test_a_batch_that_cannot_be_divided_is_refused(tiny: Tiny) -> None:
    with pytest.raises(InputError, match=r"cannot be divided into training\.accumulate = 3"):
        prepare(tiny({"training.accumulate": 3}))
    with pytest.raises(InputError, match="leaves 1 image for each of 16 micro-batches"):
        prepare(tiny({"training.accumulate": 16}))


def test_a_loss_of_the_whole_batch_is_warned_of(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = prepare(tiny({"training.accumulate": 4}))
    assert setup_notes(setup) == []
    monkeypatch.setattr(CosineLoss, "whole_batch", True)
    (line,) = setup_notes(setup)
    assert "with training.accumulate = 4 it sees 4 of 16 at once" in line
    assert setup_notes(prepare(tiny())) == []


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_gradients_are_clipped_to_a_norm_and_the_norm_before_is_told(
    tiny: Tiny, scale: float
) -> None:
    """Those that fp16 has scaled are unscaled first."""
    free, clipped = (prepare(tiny({**NORM_FREE, "optim.clip_norm": c})) for c in (0.0, 1e-3))
    for setup in (free, clipped):
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale > 1)
        object.__setattr__(setup, "scaler", scaler)
    batch = first_batch(free)
    grads: list[Tensor] = []
    norms = []
    for setup in (free, clipped):
        *_, norm = take_step(setup.siamese.train() and setup, batch, 0, want_norm=True)
        assert norm is not None
        norms.append(norm.item())
        trained = [p.grad for p in setup.siamese.parameters() if p.grad is not None]
        grads.append(torch.cat([grad.flatten() for grad in trained]))
    assert norms[0] == pytest.approx(grads[0].norm().item(), rel=1e-9)
    assert norms[1] == pytest.approx(norms[0], rel=1e-9)
    assert norms[0] > 1e-3
    torch.testing.assert_close(grads[1], grads[0] * 1e-3 / norms[0], rtol=1e-5, atol=0)


@pytest.mark.parametrize("backbone", ["test_resnet:drop_path_rate=0.3", "test_vit"])
def test_recomputed_activations_change_no_bit(run: Run, backbone: str) -> None:
    """Weights, random draws and BN's running statistics: its second pass is none of the data's."""
    settings = {"backbone": backbone, "data.image_size": 16, "training.precision": "fp32"}
    kept, kept_result = run(settings, "kept")
    passes = []
    settings["training.activation_checkpointing"] = True
    with pytest.MonkeyPatch.context() as patch:
        real = torch.utils.checkpoint.checkpoint
        patch.setattr(
            torch.utils.checkpoint,
            "checkpoint",
            lambda *args, **named: passes.append(1) or real(*args, **named),
        )
        recomputed, result = run(settings, "recomputed")
    assert passes
    assert same(load_last(kept / "checkpoints")[0]["siamese"], weights(recomputed))
    assert kept_result["identity"] == result["identity"]  # how, not what


def test_a_backbone_that_cannot_recompute_is_named(tiny: Tiny) -> None:
    settings = {"backbone": "vgg11", "data.image_size": 32}
    with pytest.raises(InputError, match="backbone vgg11 cannot recompute its activations"):
        prepare(tiny({**settings, "training.activation_checkpointing": True}))


def test_a_run_that_diverged_says_so_again_when_it_is_resumed(tiny: Tiny, tmp_path: Path) -> None:
    from simsiam_zoo.errors import DivergedError

    settings = {"optim.lr": 1e30, "loss": "mse:normalize=false"}
    for resume in (False, True):
        with pytest.raises(DivergedError, match="diverged") as ended:
            train(tiny(settings), tmp_path / "run", resume=resume, progress=Progress())
        assert ended.value.exit_code == 5
    assert json.loads((tmp_path / "run" / "result.json").read_text())["verdict"] == "diverged"
