"""The processes of a run: torchrun starts them, this module joins them.

Every function works on a single process too, where it is the identity, so that no caller asks how
many there are. Ranks are those of the run, 0 to world size - 1.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from simsiam_zoo.errors import InputError


def is_distributed() -> bool:
    """Whether a process group is up."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, 0 where it is the only one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes the run has."""
    return dist.get_world_size() if is_distributed() else 1


def announced_world_size() -> int:
    """World size that torchrun states, before the processes have met."""
    return max(1, int(os.environ.get("WORLD_SIZE", "1")))


class _Gather(torch.autograd.Function):
    """All ranks' tensors, with the gradient that each rank's share has in all ranks' losses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def gather(x: Tensor) -> Tensor:
    """Rows of all ranks, in the order of ranks: [N, ...] → [world size x N, ...].

    Every rank has to call it with as many rows. It is differentiable: where each rank computes the
    whole batch's loss of what it gives, the mean over ranks of the parameters' gradients (which DDP
    takes) is the gradient that one process would have computed on the whole batch.
    """
    if not is_distributed():
        return x
    gathered: Tensor = _Gather.apply(x.contiguous())
    return gathered


def total(x: Tensor) -> Tensor:
    """The sum over ranks, element by element; not differentiable. Integers stay exact."""
    x = x.detach().clone()
    if is_distributed():
        dist.all_reduce(x)
    return x


def mean(x: Tensor) -> Tensor:
    """The mean over ranks, element by element, of a floating-point tensor; not differentiable."""
    return total(x) / world_size()


def refuse_many_processes() -> None:
    """Stop a run that torchrun started with several processes: each would train on its own.

    Raises:
        InputError: WORLD_SIZE is more than 1.
    """
    if announced_world_size() > 1:
        raise InputError(
            f"WORLD_SIZE is {announced_world_size()}: training on several processes is not"
            " supported yet",
            "Start it without torchrun.",
        )
