"""What only a CUDA device can show. `python -m pytest -m gpu -rs`; skipped elsewhere.

With SIMSIAM_ZOO_GPU_TESTS=cpu in the environment they run on the CPU with a tiny network. That
shows nothing about a GPU, but it finds the mistakes of the tests themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.checkpoint import load_last
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.batches import to_device, train_loader
from simsiam_zoo.training.loop import take_step
from simsiam_zoo.training.meter import Meter
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.setup import prepare
from simsiam_zoo.training.train import train

DEVICE = os.environ.get("SIMSIAM_ZOO_GPU_TESTS", "cuda")
ON_CUDA = DEVICE == "cuda"
TINY = {
    "backbone": "test_resnet",
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
    "predictor": "mlp:hidden_dim=8",
    "data.image_size": 16,
    "data.workers": 0,
}
on_cuda_alone = pytest.mark.skipif(not ON_CUDA, reason="on CUDA alone")
PRECISIONS = ["fp32", "bf16", pytest.param("fp16", marks=on_cuda_alone)]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        ON_CUDA and not torch.cuda.is_available(), reason="torch sees no CUDA device"
    ),
]


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 digits to train on, 64 to test on."""
    import cv2

    folder = tmp_path_factory.mktemp("gpu-shards")
    images, labels = load_digits(return_X_y=True)
    samples = [
        PackedSample(
            f"{i:04d}",
            cv2.imencode(".png", (x.reshape(8, 8) * 15).astype(np.uint8))[1].tobytes(),
            "png",
            int(y),
        )
        for i, (x, y) in enumerate(zip(images[:320], labels[:320], strict=True))
    ]
    classes = tuple("0123456789")
    pack_dataset(folder, {"train": samples[:256], "val": samples[256:]}, classes, shard_size=64)
    return folder


@pytest.fixture
def small(shards: Path) -> Callable[..., Recipe]:
    def make(**settings: object) -> Recipe:
        base: dict[str, object] = {
            "dataset": str(shards),
            "data.image_size": 32,
            "data.workers": 2,
            "training.batch_size": 32,
            "training.epochs": 4,
            "training.device": DEVICE,
            "training.threads": 1,
            "logging.interval_steps": 1,
            "evaluation.online_epochs": 0,
            "evaluation.protocols": ["knn"],
            "evaluation.baselines": False,
        } | ({} if ON_CUDA else TINY)
        return Recipe.make("digits", None, base | settings)

    return make


@pytest.fixture(autouse=True)
def _global_switches_come_back() -> Iterator[None]:
    threads, tf32 = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32
    yield
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_short_run_learns_something_and_is_finite(
    small: Callable[..., Recipe], tmp_path: Path, precision: str
) -> None:
    result = train(
        small(**{"training.precision": precision}), tmp_path / "run", progress=Progress()
    )
    assert result["steps"] == 32
    rows = [row for row in read_metrics(tmp_path / "run") if "loss" in row]
    assert len(rows) == 32  # none was left out: a figure that is not finite would be
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_waits_for_nothing(small: Callable[..., Recipe], precision: str) -> None:
    """Torch raises at every operation that makes the host wait for the device."""
    setup = prepare(small(**{"training.precision": precision}))
    meter = Meter(setup)
    try:
        for number, loaded in enumerate(train_loader(setup).batches()):
            loss, output, _ = take_step(setup, to_device(setup, loaded), number, False)
            meter.add(loss, output.embeddings)
            if number == 2 and ON_CUDA:  # what is made once was made: constants, cuDNN's choices
                torch.cuda.set_sync_debug_mode("error")
            if number == 8:
                break
    finally:
        if ON_CUDA:
            torch.cuda.set_sync_debug_mode("default")
    assert meter.row(9)["loss"] < 1


def test_losses_are_close_to_the_cpus(small: Callable[..., Recipe]) -> None:
    """The same five steps in fp32, without TF32; at an lr that rounding does not grow at."""
    losses = {}
    for device in ("cpu", DEVICE):
        setup = prepare(
            small(**{"training.device": device, "training.precision": "fp32", "optim.lr": 0.02})
        )
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        try:
            meter, losses[device] = Meter(setup), []
            for number, loaded in zip(range(5), train_loader(setup).batches(), strict=False):
                loss, output, _ = take_step(setup, to_device(setup, loaded), number, False)
                meter.add(loss, output.embeddings)
                losses[device].append(meter.row(number + 1)["loss"])
        finally:
            torch.backends.cudnn.allow_tf32 = True
    assert losses[DEVICE] == pytest.approx(losses["cpu"], abs=1e-4)


@on_cuda_alone
def test_a_compiled_run_ends_close_to_the_plain_one(
    small: Callable[..., Recipe], tmp_path: Path
) -> None:
    last = {}
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        settings = {"training.compile": compiled, "training.precision": "fp32"}
        train(small(**settings), folder, progress=Progress())
        last[compiled] = [row["loss"] for row in read_metrics(folder) if "loss" in row][:5]
    assert last[True] == pytest.approx(last[False], abs=0.02)


class _Cut(Exception):
    pass


def test_an_interrupted_run_goes_on(small: Callable[..., Recipe], tmp_path: Path) -> None:
    """With fp16, whose scale is part of the checkpoint (bf16 on the CPU, which has no scale)."""

    class Cutting(Progress):
        def advance(self, done: int, text: str = "") -> None:
            if done == 11:
                raise _Cut

    precision = "fp16" if ON_CUDA else "bf16"
    recipe = small(**{"training.precision": precision, "training.checkpoint_steps": 5})
    with pytest.raises(_Cut):
        train(recipe, tmp_path, progress=Cutting())
    scaler = load_last(tmp_path / "checkpoints")[0]["scaler"]
    assert not ON_CUDA or 0 < scaler["scale"] < float("inf")
    assert train(recipe, tmp_path, resume=True, progress=Progress())["steps"] == 32
    steps = [row["step"] for row in read_metrics(tmp_path) if "loss" in row]
    assert steps == list(range(1, 33))
