"""The network that a run began with, as what the trained one is compared with."""

from __future__ import annotations

import itertools

import torch

from simsiam_zoo.siamese import Siamese
from simsiam_zoo.training.setup import Setup, build_siamese, to_device, train_loader

CALIBRATION_BATCHES = 50


def untrained_network(setup: Setup) -> Siamese:
    """The network at its initialisation, with BN statistics of training views.

    Without these its features would be those of no network that anybody would use, and a run that
    learned nothing would beat it by its BN statistics alone.
    """
    untrained = build_siamese(setup.recipe, setup.plan, setup.runtime)
    loaded = train_loader(setup, workers=0).batches()
    views = (to_device(setup, each) for each in itertools.islice(loaded, CALIBRATION_BATCHES))
    with setup.runtime.autocast():
        torch.optim.swa_utils.update_bn(views, untrained)
    return untrained
