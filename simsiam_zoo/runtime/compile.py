"""torch.compile on modules in place: their state dicts, names and hooks stay as they were."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable

import torch
from torch import nn

from simsiam_zoo.errors import InputError

WEAKER = (
    "compiled: fused kernels round otherwise than plain ones, so the promise that an interrupted"
    " run ends bit-identical does not hold"
)
"""What a run with `training.compile` says before it starts."""

DEFAULT_BACKEND = "inductor"


def compile_in_place(
    modules: Iterable[nn.Module], device: torch.device, backend: str = DEFAULT_BACKEND
) -> None:
    """Have the modules' forward passes compiled when they are first called.

    Each is compiled anew for what it has not met yet: eval mode, no gradient, another batch size.
    A module that holds no parameters gains nothing and is left as it is.

    Args:
        modules: are changed in place.
        device: where they are.
        backend: torch's name for what generates the code.

    Raises:
        InputError: the tool that compiles for `device` is not installed.
    """
    if backend == DEFAULT_BACKEND:
        _refuse_without_compiler(device)
    for module in modules:
        if next(module.parameters(), None) is not None:
            module.compile(backend=backend)


def _refuse_without_compiler(device: torch.device) -> None:
    """Torch itself finds out in the middle of the first step, in a hundred lines."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise InputError(
            "training.compile needs Triton on CUDA, and it is not installed",
            "python -m pip install triton, or leave out --compile.",
        )
    named = os.environ.get("CXX")
    found = any(map(shutil.which, [named] if named else ["g++", "clang++", "c++"]))
    if device.type != "cuda" and not found:
        raise InputError(
            f"training.compile needs a C++ compiler on {device.type}, and"
            f" {f'CXX = {named!r} is none' if named else 'there is none'}",
            "Install g++ or clang++ (CXX names another), or leave out --compile.",
        )
