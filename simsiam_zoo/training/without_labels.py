"""What a run is judged by where no label tells what it learned: its own views of training images.

It draws no random number that training would, and is the same for runs of any seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simsiam_zoo.data.batches import draw_view
from simsiam_zoo.data.decode import decode_as
from simsiam_zoo.data.draws import Draws
from simsiam_zoo.data.index import ImageError
from simsiam_zoo.data.loader import normalize_pixels
from simsiam_zoo.data.order import evenly
from simsiam_zoo.evaluation.frozen_pass import frozen
from simsiam_zoo.evaluation.geometry import lidar, shared_neighbours, spectrum_decay
from simsiam_zoo.evaluation.verdict import ViewFigures, WithoutLabels, paired_gain
from simsiam_zoo.model.siamese import Siamese
from simsiam_zoo.runtime import distributed
from simsiam_zoo.training.measuring import RunEvaluation
from simsiam_zoo.training.setup import Setup

IMAGES, VIEWS = 256, 8
FEWEST = 64
"""Images below which neighbours and LiDAR say too little to judge by."""

SEED = 1 << 63
"""What the views are drawn by: no run's seed, so that no run was trained on these views."""


def measure_without_labels(
    setup: Setup, evaluation: RunEvaluation, untrained: Siamese
) -> WithoutLabels | None:
    """The figures of the trained and the untrained network; ranks meet.

    None where the run reads a stream, has fewer than `FEWEST` good images among those taken, or
    what a network gives of them is not finite.
    """
    if setup.recipe.data.stream:
        return None
    networks = (setup.siamese, untrained)
    decays = [
        spectrum_decay(evaluation.monitored("features", network.backbone)) for network in networks
    ]

    def measured() -> WithoutLabels | None:
        views = drawn_views(setup)
        if views.shape[1] < FEWEST:
            return None
        with distributed.apart():
            encoded = [_encoded(setup, network, views) for network in networks]
        if not all(bool(torch.isfinite(x).all()) for pair in encoded for x in pair):
            return None
        shared = [_shared(features) for features, _ in encoded]
        trained, before = (
            ViewFigures(lidar(z), float(agreed.mean()), decay)
            for (_, z), agreed, decay in zip(encoded, shared, decays, strict=True)
        )
        images = views.shape[1]
        limit = min(setup.siamese.dim, images - 1)
        return WithoutLabels(trained, before, paired_gain(*shared), limit, images, VIEWS)

    return distributed.from_main(measured)


def drawn_views(setup: Setup) -> Tensor:
    """`VIEWS` views of each of up to `IMAGES` training images, [V, N, C, S, S].

    The run's augmentation draws them, as for training, of views of several sizes the large ones.
    Damaged images are left out.
    """
    augmentation = setup.recipe.part("augmentation").create()
    apply, shards = getattr(augmentation, "apply", None), setup.dataset.train
    sizes = setup.view_sizes
    size = max(sizes)
    large = [view for view, side in enumerate(sizes) if side == size]
    draws, images = Draws(SEED), []
    for id in evenly(len(shards), IMAGES).tolist():
        try:
            image = decode_as(shards.read(id).image, shards.channels)
        except ImageError:
            continue
        out: NDArray[Any] = np.empty((VIEWS, size, size, shards.channels), image.dtype)
        for number in range(VIEWS):
            epoch, view = number // len(large), large[number % len(large)]
            params = draws.params(augmentation, epoch, id, view, image.shape[:2])
            draw_view(apply, image, params, out[number])
        images.append(out)
    if not images:
        return torch.empty(VIEWS, 0, shards.channels, size, size, dtype=torch.uint8)
    return torch.from_numpy(np.stack(images, axis=1)).permute(0, 1, 4, 2, 3)


def _encoded(setup: Setup, siamese: Siamese, views: Tensor) -> tuple[Tensor, Tensor]:
    """Features [V, N, D] and z [V, N, d] of the views, in eval mode, float32 on the CPU."""
    data, runtime = setup.recipe.data, setup.runtime
    found: list[tuple[Tensor, Tensor]] = []
    for view in views:
        x = normalize_pixels(view, data.mean, data.std, runtime.device, runtime.dtype)
        features = frozen(siamese.backbone, runtime, x)
        z = frozen(siamese.projector, runtime, features)
        found.append((features.float().cpu(), z.float().cpu()))
    features, z = (torch.stack(each) for each in zip(*found, strict=True))
    return features, z


def _shared(features: Tensor) -> Tensor:
    """The share of each image's neighbours that views agree on, [N], mean over pairs of views."""
    pairs = zip(features[::2], features[1::2], strict=True)
    return torch.stack([shared_neighbours(u, v) for u, v in pairs]).mean(dim=0)
