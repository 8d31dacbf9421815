"""Policies that see batches ahead (arXiv:2011.10566 section 5.2): the run in blocks of steps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch

from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.training.setup import Setup, step_seed, to_device, train_loader

HELD_BYTES = 1 << 30
"""A block of up to this many bytes of views is kept in memory; a longer one is read twice."""


def block_of(setup: Setup) -> int:
    """Steps in a block: the gradient policy's; 1 where it has none."""
    return max(1, setup.siamese.gradient.blocks)


def in_blocks(setup: Setup, batches: Iterator[LoadedBatch], step: int) -> Iterator[LoadedBatch]:
    """The same batches; before the first of each block the policy is shown the whole block.

    Args:
        setup: the run.
        batches: from `step` on.
        step: the start of a block.
    """
    if not setup.siamese.gradient.blocks:
        yield from batches
        return
    while step < setup.steps:
        length = min(block_of(setup), setup.steps - step)
        first = next(batches, None)
        if first is None:
            return
        held = [first, *islice(batches, length - 1)] if _fits(first, length) else None
        prepare(setup, step, iter(held) if held else read_again(setup, step, length))
        yield from held or [first]
        if not held:
            yield from islice(batches, length - 1)
        step += length


def prepare(setup: Setup, step: int, block: Iterator[LoadedBatch]) -> None:
    """Show the policy the block that starts at `step`."""
    policy = setup.siamese.gradient
    # As the step is: a block of one has the targets that the step itself would have.
    torch.manual_seed(step_seed(setup, step))
    with torch.no_grad(), setup.runtime.autocast():
        policy.prepare_block(setup.siamese, (to_device(setup, loaded) for loaded in block))


def read_again(setup: Setup, step: int, length: int) -> Iterator[LoadedBatch]:
    """A second pass of the loader over the block."""
    yield from islice(train_loader(setup).batches(*divmod(step, setup.plan.steps)), length)


def _fits(first: LoadedBatch, length: int) -> bool:
    return first.pixels.nbytes * length <= HELD_BYTES
