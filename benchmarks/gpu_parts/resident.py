"""The networks of the paper at their full size, and batches for them."""

from __future__ import annotations

from pathlib import Path

import torch

from gpu_parts.part import Part
from shared.images import noise_shards
from simsiam_zoo.model.siamese import Batch
from simsiam_zoo.training.setup import Setup, prepare


def paper_setup(
    part: Part, preset: str, size: int, batch: int, data: Path | None = None, **settings: object
) -> Setup:
    """The preset's network at `size` px, in a rehearsal too; by default on images of noise."""
    if data is None:
        data = part.folder / f"noise-{batch}"
        if not data.exists():
            data.mkdir()
            noise_shards(data, 2 * batch)
    recipe = part.recipe(
        preset,
        tiny=False,
        dataset=str(data),
        data__image_size=size,
        training__batch_size=batch,
        **settings,
    )
    setup = prepare(recipe)
    setup.schedule.apply(setup.optimizer, 0)
    return setup


def noise(device: torch.device, batch: int, size: int) -> Batch:
    """Two views [batch, 3, size, size] on the device, channels last."""
    views = torch.randn(2, batch, 3, size, size, device=device).unbind()
    return Batch([x.contiguous(memory_format=torch.channels_last) for x in views])
