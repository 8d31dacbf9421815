"""`simsiam-zoo export`: write the backbone for another library, read it there, compare."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from simsiam_zoo.errors import DataError, InputError, PluginError, did_you_mean
from simsiam_zoo.exchange.formats import (
    Code,
    Source,
    write_onnx,
    write_pt2,
    write_safetensors,
    write_timm,
    write_torchvision,
)
from simsiam_zoo.exchange.hub import write_hub
from simsiam_zoo.runtime.folders import sync_folder
from simsiam_zoo.training.run import Run

TOLERANCE = 1e-4
"""Largest difference that is let pass, as a share of the largest feature (of 1, if that is more).

Weights are copied bit by bit; what may differ is the order in which another library adds up."""


@dataclass(frozen=True)
class Exported:
    """What was written and compared.

    Attributes:
        path: the file or folder.
        difference: largest |difference| between the features of the run's backbone and of what was
            written, loaded again, on three random images.
        largest: the largest |feature| there.
        code: Python that loads it, and takes `images` [N, 3, H, W] to `features`.
    """

    path: Path
    difference: float
    largest: float
    code: str


FORMATS: dict[str, tuple[str, Callable[[Source, Path], Code]]] = {
    "timm": ("timm.safetensors", write_timm),
    "torchvision": ("torchvision.safetensors", write_torchvision),
    "safetensors": ("backbone.safetensors", write_safetensors),
    "onnx": ("backbone.onnx", write_onnx),
    "pt2": ("backbone.pt2", write_pt2),
    "hub": ("hub", write_hub),
}
"""What `to` may be: the name of what is written, and what writes it."""


def export(
    run: Run, to: str, out: Path | str | None = None, licence: str | None = None
) -> Exported:
    """Write a run's backbone for another library, and prove that it gives the same features there.

    Args:
        run: the run; an unfinished one gives the backbone of its last checkpoint.
        to: `timm`, `torchvision`, `safetensors`, `onnx`, `pt2` or `hub` (a folder).
        out: where; nothing may be there. By default in the run's folder, in `exports/`.
        licence: of the weights, as the Hub spells it (`cc-by-4.0`); for the model card of `hub`.

    Raises:
        InputError: there is something at `out`, it cannot be written, or the other library has no
            such architecture.
        PluginError: a package is missing, torch cannot export the backbone, or what was written
            gives other features; then nothing is left behind.
        DataError: the run's weights are damaged or not finite.
    """
    if to not in FORMATS:
        raise InputError(f"there is no format {to!r}", did_you_mean(to, FORMATS, _formats()))
    name, write = FORMATS[to]
    out = Path(out) if out is not None else run.folder / "exports" / name
    if out.exists():
        raise InputError(f"{out} exists already", "Remove it, or give another --out.")
    if licence is not None and to != "hub":
        raise InputError("a licence is for the model card, which only --to hub writes")
    backbone = copy.deepcopy(run.backbone).to(memory_format=torch.contiguous_format).float()
    source = Source(run, backbone, licence)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # In a folder of its own, so that whatever is written there goes with it.
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside:
            there = Path(beside) / out.name
            code = write(source, there)
            difference, largest = _compare(source, code(there), to)
            os.replace(there, out)
        sync_folder(out.parent)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror or error}") from None
    return Exported(out, difference, largest, code(out))


def _formats() -> str:
    return f"The formats are {', '.join(FORMATS)}."


def _compare(source: Source, code: str, to: str) -> tuple[float, float]:
    """(largest difference, largest feature) over three random images.

    Three, where graphs were traced with two: the size of a batch must not be in them.
    """
    images = source.images(3)
    names: dict[str, Any] = {"images": images}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        expected = source.backbone(images)
        if not expected.isfinite().all():
            raise DataError("the run's backbone gives features that are not finite")
        try:
            exec(code, names)  # our own text, see formats.py
        except Exception as error:
            raise PluginError(
                f"what was written for {to} cannot be loaded there:"
                f" {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            ) from error
    features = torch.as_tensor(names["features"])
    if features.shape != expected.shape:
        raise PluginError(
            f"loaded by {to} the backbone gives {list(features.shape)}, not {list(expected.shape)}"
        )
    difference = float((features - expected).abs().max())
    largest = float(expected.abs().max())
    if not difference <= TOLERANCE * max(1.0, largest):
        raise PluginError(
            f"loaded by {to} the backbone gives other features: they differ by up to"
            f" {difference:.2g}, where the largest is {largest:.2g}",
            "Nothing was kept. Export with --to safetensors.",
        )
    return difference, largest
