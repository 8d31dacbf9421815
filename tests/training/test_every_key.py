"""No key without an effect: each one is changed, and the run or how it is operated changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.layers import COMPONENTS
from simsiam_zoo.recipe.recipe import recipe_keys
from simsiam_zoo.runtime.checkpoint import load_last
from simsiam_zoo.training import batches
from simsiam_zoo.training import state as saving
from simsiam_zoo.training.meter import MACHINE
from simsiam_zoo.training.run_folder import read_metrics

Run = Callable[..., tuple[Path, dict[str, Any]]]

# What each key is changed to, and what must differ then: the trained weights, the figures, the
# lines of the log, the checkpoints that were written, or the machine.
CHANGES: dict[str, tuple[object, str]] = {
    "data.image_size": (24, "weights"),
    "data.mean": ([0.1, 0.2, 0.3], "weights"),
    "data.std": ([0.1, 0.2, 0.3], "weights"),
    "data.window": (1, "weights"),
    "data.lanes": (2, "weights"),
    "data.workers": (1, "workers"),
    "data.views": ("split", "machine"),
    "data.validation": (0.25, "weights"),
    "training.epochs": (1, "weights"),
    "training.batch_size": (32, "weights"),
    "training.seed": (1, "weights"),
    "training.precision": ("bf16", "weights"),
    "training.threads": (2, "machine"),
    "training.accumulate": (2, "weights"),
    "training.activation_checkpointing": (True, "machine"),
    "training.checkpoint_steps": (5, "saves"),
    "training.checkpoint_minutes": (1e-6, "saves"),
    "optim.name": ("lars", "weights"),
    "optim.lr": (0.5, "weights"),
    "optim.momentum": (0.5, "weights"),
    "optim.betas": ([0.5, 0.999], "weights"),
    "optim.trust_coefficient": (0.01, "weights"),
    "optim.weight_decay": (0.1, "weights"),
    "optim.exclude_norm_and_bias": (True, "weights"),
    "optim.schedule": ("constant", "weights"),
    "optim.warmup_epochs": (1.0, "weights"),
    "optim.norm_and_bias_lr_scale": (0.5, "weights"),
    "optim.final_lr_scale": (0.5, "weights"),
    "optim.lr_in_momentum": (False, "weights"),
    "optim.clip_norm": (0.1, "weights"),
    "optim.parts": ({"backbone": {"lr_scale": 0.5}}, "weights"),
    "evaluation.protocols": (["knn:k=3"], "figures"),
    "evaluation.crop": (0.5, "figures"),
    "evaluation.baselines": (True, "figures"),
    "logging.interval_steps": (3, "log"),
    "evaluation.online": (["knn:k=3"], "log"),
    "evaluation.online_epochs": (0, "log"),
    "evaluation.online_images": (20, "log"),
    "evaluation.rank_samples": (8, "log"),
    **dict.fromkeys(COMPONENTS, (None, "weights")),  # each by its own substitution, below
}
SUBSTITUTES = {
    "backbone": "test_resnet:drop_path_rate=0.5",
    "projector": "none",
    "predictor": "none",
    "gradient": "none",
    "loss": "cross-entropy",
    "augmentation": "cifar",
}
ELSEWHERE = {
    "preset": "test_recipe.py: it is what the other keys are laid on",
    "dataset": "below",
    "data.stream": "test_stream.py",
    "data.steps_per_epoch": "test_stream.py",
    "data.channels": "test_channels.py: it takes images of other channels",
    "data.cache_gb": "test_remote.py: it bounds the cache of remote shards",
    "data.resident": "test_views.py: it bounds the images that rest on the device",
    "data.max_damaged": "test_damage.py: it takes damaged shards",
    "training.compile": "test_compile.py: with a backend that compiles in no time",
    "training.device": "below: there is one device here",
    "training.sync_bn": "test_gpu.py: it takes several processes with CUDA",
    "training.init": "test_start.py, test_importing.py: it names weights that a run starts from",
    "training.until": "test_tuning.py: it stops a run on the way",
    "training.stop_on_collapse": "test_collapse.py: it takes a run that collapses",
    "logging.loggers": "test_loggers.py",
    "change": "test_changes.py",
}


def observe(
    run: Run, settings: dict[str, object], name: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    saves: list[int] = []
    workers: list[int] = []
    save, loader = saving.save_checkpoint, batches.TrainLoader

    def counting_save(folder: Path, step: int, state: dict[str, Any]) -> Path:
        saves.append(step)
        return save(folder, step, state)

    def noting_loader(*args: Any, **kwargs: Any) -> Any:
        workers.append(kwargs["workers"])
        return loader(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save_checkpoint", counting_save)
        patch.setattr(batches, "TrainLoader", noting_loader)
        folder, result = run(settings, name)
    state, _, _ = load_last(folder / "checkpoints")
    digest = hashlib.sha256()
    for key, value in sorted(state["siamese"].items()):
        digest.update(key.encode() + value.numpy().tobytes())
    log = [
        {key: value for key, value in row.items() if key not in MACHINE}
        for row in read_metrics(folder)
    ]
    return {
        "weights": digest.hexdigest(),
        "figures": result["figures"],
        "log": log,
        "saves": saves,
        "workers": workers,
        "machine": (folder / "lock.toml").read_text().partition("[machine]")[2],
    }


def test_the_table_has_every_key() -> None:
    assert CHANGES.keys() | ELSEWHERE.keys() == {path for path, _ in recipe_keys()}


BASE: dict[str, object] = {"logging.interval_steps": 2}
# Where a key needs something else than `BASE` to act on.
NEEDS: dict[str, dict[str, object]] = {
    "training.precision": {"data.image_size": 32},  # bf16 is not to be had below
    "evaluation.crop": {"data.image_size": 32},  # a crop needs pixels
    "optim.betas": {"optim.name": "adamw", "optim.lr": 0.01},
    "optim.trust_coefficient": {"optim.name": "lars"},
    "optim.lr_in_momentum": {"optim.name": "lars"},
}


_seen_before: dict[str, dict[str, Any]] = {}


@pytest.fixture
def before(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """`before(needs)` → what a run shows before the key is changed; each is run once."""

    def look(needs: dict[str, object]) -> dict[str, Any]:
        if str(needs) not in _seen_before:
            _seen_before[str(needs)] = observe(run, {**BASE, **needs}, "before", monkeypatch)
        return _seen_before[str(needs)]

    return look


def test_the_same_run_shows_the_same(
    run: Run, before: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert before({}) == observe(run, BASE, "again", monkeypatch)  # else any key would seem to act


@pytest.mark.parametrize("path", sorted(CHANGES.keys() - ELSEWHERE.keys()))
def test_each_key_changes_what_it_says(
    run: Run,
    before: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    value, aspect = CHANGES[path]
    needs = NEEDS.get(path, {})
    plain = before(needs)
    seen = observe(run, {**BASE, **needs, path: SUBSTITUTES.get(path, value)}, "after", monkeypatch)
    assert seen[aspect] != plain[aspect]
    if aspect in {"log", "saves", "workers"}:  # operational: the run itself is the same
        assert seen["weights"] == plain["weights"]


def test_the_dataset_and_the_device_are_used(run: Run, tiny: Callable[..., Recipe]) -> None:
    with pytest.raises(InputError, match="no data at"):
        run({"dataset": "./nowhere"})
    with pytest.raises(InputError, match="CUDA device"):
        run({"training.device": "cuda:99"})
