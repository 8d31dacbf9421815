"""Folders that look like those of runs, without training."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

KNN = "knn (k=20, t=0.1)"


def make_run(
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    top1: Mapping[str, float] | None = None,
    verdict: str | None = "learned",
    measured_on: str = "test",
    digest: str = "d1",
    right: Sequence[bool] | None = None,
    age: float = 0.0,
    version: int = 3,
) -> Path:
    """A run; `verdict` None: it is not complete; `right`: which images knn got right."""
    tree: dict[str, Any] = {
        "preset": "digits",
        "predictor": {"name": "mlp", "hidden_dim": 64},
        "dataset": {"name": "digits"},
        "data": {"workers": 2, "validation": 0.0},
        "training": {"epochs": 20, "seed": 0},
        "optim": {"lr": 1.0},
    }
    for path, value in (settings or {}).items():
        *above, key = path.split(".")
        table = tree
        for name in above:
            table = table.setdefault(name, {})
        table[key] = value
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(tomli_w.dumps(tree))
    (folder / "lock.toml").write_text(tomli_w.dumps({"identity": "i", "data": {"digest": digest}}))
    if right is not None:
        top1 = {**(top1 or {}), KNN: round(float(np.mean(right)), 6)}
    images = 100 if right is None else len(right)
    figures = [
        {"protocol": name, "protocol_version": version, "top1": share, "test_images": images}
        for name, share in (top1 or {}).items()
    ]
    if verdict is not None:
        trained = [{"network": "trained network", **figure} for figure in figures]
        raw = [{"network": "raw pixels", **figure, "top1": 0.5} for figure in figures]
        result = {"verdict": verdict, "reason": "why", "measured_on": measured_on}
        (folder / "result.json").write_text(json.dumps({**result, "figures": trained + raw}))
    if right is not None:
        bits = base64.b64encode(np.packbits(np.array(right)).tobytes()).decode()
        record = {"measured_on": measured_on, "test": f"images of {digest}"}
        known = [{**f, "right": bits} for f in figures if f["protocol"] == KNN]
        text = json.dumps({"data": record, "figures": known})
        (folder / "correct.json").write_text(text)
    for path in folder.iterdir():
        os.utime(path, (1e9 - age, 1e9 - age))
    return folder
