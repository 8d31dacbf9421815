"""The next batch on its way to the device while this one is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.model.siamese import Batch

Place = Callable[[LoadedBatch], Batch]


def prefetched(
    loaded: Iterable[LoadedBatch], place: Place, device: torch.device, ahead: bool = True
) -> Iterator[tuple[LoadedBatch, Batch]]:
    """Each loaded batch, and what `place` makes of it on the device.

    On CUDA the copy and the normalisation of batch k + 1 are queued on a stream of their own before
    step k, and run beside it; the values are the same to the bit. One batch more is in the device's
    memory, and an error that the loader meets in batch k + 1 is raised before step k. Elsewhere
    each batch is placed when it is asked for.

    Args:
        loaded: batches from the loader, in page-locked memory on CUDA, else the copy waits.
        place: puts one on the device; it only queues work.
        device: where the steps run, on the stream that is current when a batch is asked for.
        ahead: False: do not ask for a batch before the step on the one before it, on CUDA either.
    """
    if device.type != "cuda" or not ahead:
        return ((each, place(each)) for each in loaded)
    return _ahead(loaded, place, device)


def _ahead(
    loaded: Iterable[LoadedBatch], place: Place, device: torch.device
) -> Iterator[tuple[LoadedBatch, Batch]]:
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: tuple[LoadedBatch, Batch, torch.cuda.Event] | None = None
    for each in loaded:
        with torch.cuda.stream(side):
            coming = each, place(each), side.record_event()
        if waiting is not None:
            yield _handed_over(*waiting, device)
        waiting = coming
    if waiting is not None:
        yield _handed_over(*waiting, device)


def _handed_over(
    loaded: LoadedBatch, batch: Batch, ready: torch.cuda.Event, device: torch.device
) -> tuple[LoadedBatch, Batch]:
    """The batch for use on the stream of the steps, which waits until it is complete.

    Its memory belongs to the side stream: unless told of the other one, the allocator would give it
    to the next batch as soon as Python lets go of it, while a queued step still has to read it.
    """
    steps = torch.cuda.current_stream(device)
    steps.wait_event(ready)
    for tensor in (*batch.views, batch.ids, batch.labels):
        if tensor is not None and tensor.is_cuda:
            tensor.record_stream(steps)
    return loaded, batch
