"""The network that a run began with, as what the trained one is compared with."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from simsiam_zoo.model.siamese import Siamese
from simsiam_zoo.training.setup import Setup, build_siamese, to_device, train_loader
from simsiam_zoo.training.start import start_from

CALIBRATION_BATCHES = 50


def state_before(setup: Setup) -> str:
    """What to call that network beside the trained one: it may begin with another's weights."""
    return "starting" if setup.start else "untrained"


def untrained_network(setup: Setup) -> Siamese:
    """The network as the run began with it, with BN statistics of training views.

    Without these its features would be those of no network that anybody would use, and a run that
    learned nothing would beat it by its BN statistics alone.
    """
    untrained = build_siamese(setup.recipe, setup.plan, setup.runtime)
    start_from(untrained, setup.start, setup.recipe)
    loaded = train_loader(setup, workers=0).batches()
    views = (
        view
        for each in itertools.islice(loaded, CALIBRATION_BATCHES)
        for view in to_device(setup, each).views
    )
    with setup.runtime.autocast():
        torch.optim.swa_utils.update_bn(views, _Encoder(untrained))
    return untrained


class _Encoder(nn.Module):
    """Views to z: the policy is left out, which may want to be prepared, or keep what it sees."""

    def __init__(self, siamese: Siamese) -> None:
        super().__init__()
        self.siamese = siamese

    def forward(self, view: Tensor) -> Tensor:
        return self.siamese.encode(view)
