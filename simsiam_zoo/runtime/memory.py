"""Memory that is not to be had, said as a user's error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from simsiam_zoo.errors import InputError

_SIGNS = (
    "DefaultCPUAllocator: ",  # torch, main memory: can't allocate, not enough
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)
"""Shortages that come as an ordinary RuntimeError."""


@contextmanager
def memory_trouble(doing: str, way_out: str) -> Iterator[None]:
    """What a device or machine that is too small does in the middle of the work. Also a decorator.

    Args:
        doing: what needs the memory, after "not enough memory for".
        way_out: what takes less.

    Raises:
        InputError: an allocation failed.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_shortage(error):
            raise
        raise InputError(
            f"not enough memory for {doing}: {_first_words(error)}", way_out
        ) from error


def _is_shortage(error: BaseException) -> bool:
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or any(sign in str(error) for sign in _SIGNS)


def _first_words(error: BaseException) -> str:
    """The allocator's own: what was asked for. torch goes on for a paragraph."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    _, _, line = line.rpartition("DefaultCPUAllocator: ")
    return ". ".join(line.split(". ")[:2]).rstrip(".")
