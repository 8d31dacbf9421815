"""The processes of a run: torchrun starts them, this module lets them work as one.

Every function works on a single process too, where it costs nothing, so that no caller asks how
many there are. Ranks are those of the run, 0 to world size - 1; rank 0 speaks and writes.

There are two groups: the default one, over which gradients go (NCCL on CUDA, else gloo), and a side
group on the CPU for what the ranks have to tell each other, so that it waits for no device.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from simsiam_zoo.errors import InputError, PeerError, ZooError
from simsiam_zoo.runtime.machine import announced_world_size

T = TypeVar("T")

_PATIENCE = timedelta(minutes=30)
"""How long a collective of a step waits for the other ranks, whose loaders may have to fetch."""

_SIDE_PATIENCE = timedelta(days=7)  # a rank may measure for hours; a dead peer is noticed at once

_side: Any = None
_apart = False


def is_distributed() -> bool:
    """Whether a process group is up, and this process is not `apart` from it."""
    return not _apart and dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, 0 where it is the only one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes the run has."""
    return dist.get_world_size() if is_distributed() else 1


@contextmanager
def joined() -> Iterator[None]:
    """Meet the run's other processes, if torchrun has started any; part at the end.

    A process group of the caller's own is used, and a side group made beside it, for it may be
    NCCL's alone. InputError: the others cannot be met. PeerError: another one failed, or is gone.
    """
    global _side
    outer, met = _side, not is_distributed()
    if met and announced_world_size() == 1:
        yield
        return
    if met:
        _meet()
    _side = outer or dist.new_group(backend="gloo", timeout=_SIDE_PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if not _tells_of_a_lost_peer(error):
            raise
        raise PeerError(
            "another process of the run is gone: it failed, was killed, or cannot be reached",
            "Where it failed, it has printed why.",
        ) from error
    else:
        if met:
            dist.destroy_process_group()  # after an error it might wait for the others for ever
    finally:
        _side = outer


def _meet() -> None:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store, rank, world = _store_of_this_start()
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=world, timeout=_PATIENCE
        )
    except (ValueError, RuntimeError) as error:
        where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise InputError(
            f"the {announced_world_size()} processes of the run cannot meet at {where}:"
            f" {str(error).splitlines()[0]}",
            "Give torchrun another --master-port if that one is taken, or --standalone.",
        ) from error


def _store_of_this_start() -> tuple[Any, int, int]:
    """A store in which nothing is left of former processes; rank; world size.

    torchrun's own outlives the processes that it starts anew, which would wait for the addresses of
    the former ones for ever; its count of restarts is not the same on all nodes. So the first rank
    names a part of it, and lists by a word of each whom it is for.
    """
    # Not at the top: a torch that was built without them has no such names.
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    shared, rank, world = next(rendezvous("env://", timeout=_PATIENCE))
    shared = PrefixStore("simsiam-zoo", shared)
    name, word = secrets.token_hex(8), secrets.token_hex(8)
    words, seen = [[f"{what}-{n}" for n in range(world)] for what in ("word", name)]
    shared.set(words[rank], word)
    until = time.monotonic() + _PATIENCE.total_seconds()
    while time.monotonic() < until:
        if rank == 0:
            there = [shared.get(key).decode() if shared.check([key]) else "" for key in words]
            shared.set("start", json.dumps([name, there]))
        if shared.check(["start"]):
            name, listed = json.loads(shared.get("start"))
            if listed[rank : rank + 1] == [word]:  # else it is of former processes
                shared.set(f"{name}-{rank}", "")
                if rank > 0 or shared.check(seen):
                    return PrefixStore(name, shared), rank, world
        time.sleep(0.02)
    raise RuntimeError(f"timed out after {_PATIENCE}")


def _tells_of_a_lost_peer(error: RuntimeError) -> bool:
    text = str(error).lower()
    signs = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out")
    return isinstance(error, dist.DistError) or any(sign in text for sign in signs)


def together(work: Callable[[], T]) -> T:
    """Do `work` on every rank; where it fails on one, it fails on all, with its text and code."""
    if not is_distributed():
        return work()
    value: T | None = None
    failure: Exception | None = None
    stated: tuple[int, str, str | None] | None = None
    try:
        value = work()
    except ZooError as error:
        failure, stated = error, (error.exit_code, error.what, error.hint)
    except Exception as error:
        failure, stated = error, (1, f"{type(error).__name__}: {error}", None)
    answers = collect(stated)
    if failure is not None:
        raise failure
    for number, other in enumerate(answers):
        if other is not None:
            code, what, hint = other
            raise PeerError(f"rank {number}: {what}", hint, code)
    return value  # type: ignore[return-value]


def from_main(work: Callable[[], T]) -> T:
    """Do `work` on rank 0 alone; its value (plain values) or its error is everyone's."""
    value = together(lambda: work() if rank() == 0 else None)
    if not is_distributed():
        return value  # type: ignore[return-value]
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_side)
    return box[0]  # type: ignore[return-value]


def collect(value: T) -> list[T]:
    """Every rank's value (plain values), in the order of ranks."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_side)
    return values


def agree(*wishes: int) -> tuple[int, ...]:
    """Each wish added up over the ranks. Waits for the others, but for no device."""
    if not is_distributed():
        return wishes
    said = torch.tensor(wishes, dtype=torch.int64)
    dist.all_reduce(said, group=_side)
    return tuple(said.tolist())


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
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed[rank() * ctx.rows : (rank() + 1) * ctx.rows]


@contextmanager
def apart() -> Iterator[None]:
    """Inside, this process is the only one, rank 0 of 1: for what it does while others do not."""
    global _apart
    before, _apart = _apart, True
    try:
        yield
    finally:
        _apart = before


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


def gather_samples(rows: Tensor) -> Tensor | None:
    """All ranks' rows of what is kept for each sample, on the CPU of rank 0; None on the others.

    Takes [samples / ranks, ...], row i of rank r's being sample i x world size + r, and gives
    [samples, ...].
    """
    if not is_distributed():
        return rows.cpu()
    counts = collect(len(rows))
    padded = torch.zeros(max(counts), *rows.shape[1:], dtype=rows.dtype)
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts] if rank() == 0 else None
    dist.gather(padded, parts, dst=0, group=_side)
    return None if parts is None else torch.stack(parts, dim=1).flatten(0, 1)[: sum(counts)]


def total(x: Tensor) -> Tensor:
    """The sum over ranks, element by element; not differentiable. Integers stay exact."""
    x = x.detach().clone()
    if is_distributed():
        dist.all_reduce(x)
    return x


def mean(x: Tensor) -> Tensor:
    """The mean over ranks, element by element, of a floating-point tensor; not differentiable."""
    return total(x) / world_size()
