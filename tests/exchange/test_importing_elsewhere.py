"""Weights as other libraries and people's scripts save them."""

from __future__ import annotations

import argparse
import errno
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from made_weights import SMALL, images, stir
from safetensors.torch import save_file
from torch import Tensor, nn

from simsiam_zoo.errors import InputError
from simsiam_zoo.exchange.importing import import_checkpoint


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(4)
    return stir(timm.create_model("test_resnet", num_classes=0))


HEAD = {"fc.weight": torch.zeros(3, 3)}


def slow(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a second network that follows the first."""
    return {key: value + 1 for key, value in state.items()}


def below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    ("prefix", "found", "others", "left_out"),
    [
        ("module.", "", {}, ()),
        ("_orig_mod.", "", {}, ()),
        ("module._orig_mod.", "", {}, ()),
        ("backbone._orig_mod.", "backbone.", {"projector.0.weight": 1}, ("projector",)),
        ("backbone.", "backbone.", {"projection_head.0.weight": 1}, ("projection_head",)),
        ("encoder.", "encoder.", {"projector.0.bias": 1}, ("projector",)),
        ("module.encoder_q.", "encoder_q.", {"module.queue": 1}, ("queue",)),
        ("model.backbone.", "model.backbone.", {"model.head.weight": 1}, ("model",)),
    ],
)
def test_weights_are_found_behind_the_prefix_of_another_library(
    model, tmp_path, prefix, found, others, left_out
) -> None:
    state = below(prefix, model.state_dict() | HEAD)
    state |= {key: torch.zeros(2, 2) for key in others}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    run = import_checkpoint(
        tmp_path / "a.pth", tmp_path / "run", backbone="test_resnet", settings=SMALL
    )
    said = run.lock["imported"]
    assert (said["prefix"], *said["left_out"]) == (found, *left_out)
    with torch.no_grad():
        assert torch.allclose(run.backbone(images(32)), model(images(32)), atol=1e-5)


@pytest.mark.parametrize(
    ("first", "second"),
    [("teacher.backbone.", "student.backbone."), ("encoder_k.", "encoder_q."), ("ema.", "net.")],
)
def test_of_two_networks_the_one_that_was_trained_is_taken(model, tmp_path, first, second) -> None:
    weights = model.state_dict()
    torch.save(below(first, slow(weights)) | below(second, weights), tmp_path / "a.pth")
    run = import_checkpoint(
        tmp_path / "a.pth", tmp_path / "run", backbone="test_resnet", settings=SMALL
    )
    assert run.lock["imported"]["prefix"] == second
    assert torch.equal(run.backbone.conv1[0].weight, weights["conv1.0.weight"])


def test_plain_values_that_scripts_save_beside_tensors_are_read(model, tmp_path) -> None:
    args = argparse.Namespace(arch="test_resnet", lr=np.float32(0.1), out=Path("somewhere"))
    table = {"model": model.state_dict(), "args": args, "best": np.float64(71.3)}
    torch.save(table, tmp_path / "a.pth")
    old = tmp_path / "old.pth"  # as numpy 1 spelled it
    torch.save(table, old, _use_new_zipfile_serialization=False)
    old.write_bytes(old.read_bytes().replace(b"numpy._core", b"numpy.core"))
    for file in (tmp_path / "a.pth", old):
        run = import_checkpoint(file, tmp_path / file.stem, settings=SMALL)
        assert run.recipe.backbone.name == "test_resnet"  # the Namespace says so


def test_a_runs_own_backbone_says_itself_what_it_is(model, tmp_path) -> None:
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    settings = {**SMALL, "backbone.drop_path_rate": 0.0}
    first = import_checkpoint(
        tmp_path / "weights.safetensors", tmp_path / "first", backbone="test_resnet", settings=SMALL
    )
    own = first.folder / "backbone.safetensors"
    second = import_checkpoint(own, tmp_path / "second")
    assert second.recipe.backbone.name == "test_resnet"
    assert second.recipe.data.image_size == 32
    with torch.no_grad():
        assert torch.equal(second.backbone(images(32)), first.backbone(images(32)))
    with pytest.raises(InputError, match="cannot be set"):
        import_checkpoint(own, tmp_path / "third", settings=settings)
    with pytest.raises(InputError, match="--backbone says 'resnet18'"):
        import_checkpoint(own, tmp_path / "third", backbone="resnet18")


def test_an_import_that_fails_leaves_nothing(model, tmp_path, monkeypatch) -> None:
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    (tmp_path / "empty").mkdir()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("simsiam_zoo.exchange.importing.write_backbone", full)
    for out in (tmp_path / "new" / "run", tmp_path / "empty"):
        with pytest.raises(InputError, match="No space left"):
            import_checkpoint(
                tmp_path / "a.safetensors", out, backbone="test_resnet", settings=SMALL
            )
    assert not (tmp_path / "new").exists()
    assert [*(tmp_path / "empty").iterdir()] == []
