"""Checks that a part can be made again: from its state dict, and as a copy."""

from __future__ import annotations

import copy
import io
import pickle

import torch
from torch import Tensor

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.model.siamese import Siamese
from simsiam_zoo.testing import bench
from simsiam_zoo.testing.checks import check, expect
from simsiam_zoo.testing.plugins import Subject


@check(
    "state",
    *PARTS,
    asks="all that a part has learned is in its state_dict (or in per_sample_state), as tensors.",
    way_out="keep parameters in nn.Parameter and other tensors in register_buffer.",
)
def state_survives_a_checkpoint(subject: Subject) -> None:
    """A network of other weights that is given the state goes on as the first does."""
    first, second = bench.make(subject, seed=0), bench.make(subject, seed=1)
    bench.step(first, bench.batch(first))
    file = io.BytesIO()
    torch.save(bench.state(first), file)
    file.seek(0)
    saved: dict[str, Tensor] = torch.load(file, weights_only=True)
    kept = second.gradient.per_sample_state()
    for name, tensor in kept.items():
        tensor.copy_(saved.pop(f"per sample: {name}"))
    second.load_state_dict(saved)
    losses = []
    for siamese in (first, second):
        for parameter in siamese.parameters():
            parameter.grad = None
        torch.manual_seed(2)
        losses.append(float(bench.step(siamese, bench.batch(siamese, 1), 1)))
    expect(
        losses[0] == losses[1],
        f"with its state restored the next loss is {losses[1]!r}, and was {losses[0]!r}",
    )


@check(
    "copies",
    *PARTS,
    asks="a part can be deep-copied and pickled, before training and in its midst.",
    way_out="hold no lambdas, locks, open files or tensors of a graph as attributes.",
)
def can_be_copied_and_pickled(subject: Subject) -> None:
    """Policies copy networks for their targets; launchers and workers send parts."""
    siamese = bench.make(subject)
    for number in range(2):
        part = bench.own(siamese, subject)
        for how, copied in (
            ("deepcopy", copy.deepcopy(part)),
            ("pickle", pickle.loads(pickle.dumps(part))),
        ):
            bench.same(part.state_dict(), copied.state_dict(), f"{how} changes")
        bench.step(siamese, bench.batch(siamese), number)
    _whole(siamese)


def _whole(siamese: Siamese) -> None:
    again = copy.deepcopy(siamese)
    for network in (siamese, again):
        for parameter in network.parameters():
            parameter.grad = None
    losses = []
    for network in (siamese, again):
        torch.manual_seed(3)
        losses.append(float(bench.step(network, bench.batch(network, 3), 2)))
    expect(losses[0] == losses[1], f"a deep copy's loss is {losses[1]!r}, not {losses[0]!r}")
