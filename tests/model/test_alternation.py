"""k-step alternation: with k = 1 it is SimSiam; with more, its targets are of the block's start."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam_zoo.catalog import create_component
from simsiam_zoo.errors import InputError
from simsiam_zoo.model import gradients
from simsiam_zoo.model.gradients import Alternation
from simsiam_zoo.model.losses import CosineLoss
from simsiam_zoo.model.siamese import Batch, GradientPolicy, Siamese


def network(policy: GradientPolicy) -> Siamese:
    """BN and dropout: with running statistics and draws of its own."""
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten()
    )
    projector = create_component(
        "projector", "mlp", in_dim=8 * 4, layers=2, hidden_dim=16, out_dim=12
    )
    predictor = create_component("predictor", "mlp", dim=12)
    return Siamese(backbone, projector, predictor, policy, CosineLoss(), in_dim=32, dim=12)


def batches(count: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    draw = [torch.randn(6, 3, 4, 4, generator=generator) for _ in range(2 * count)]
    return [Batch([x1, x2]) for x1, x2 in zip(draw[0::2], draw[1::2], strict=True)]


Trace = list[dict[str, Tensor]]


def train(
    siamese: Siamese, data: list[Batch], autocast: Callable[[], nullcontext[None]] = nullcontext
) -> Trace:
    """SGD, with a block's targets prepared where the policy asks; all values after each step."""
    optimizer = torch.optim.SGD(siamese.parameters(), lr=0.5, momentum=0.9)
    block, trace = siamese.gradient.blocks, []
    for step, batch in enumerate(data):
        torch.manual_seed(100 + step)
        if block and step % block == 0:
            with autocast(), torch.no_grad():
                siamese.gradient.prepare_block(siamese, iter(data[step : step + block]))
        with autocast():
            loss, output = siamese.step(batch)
        optimizer.zero_grad()
        loss.backward()
        gradients = {f"grad {n}": p.grad.clone() for n, p in siamese.named_parameters()}
        optimizer.step()
        state = {name: value.clone() for name, value in siamese.state_dict().items()}
        drawn = {"generator": torch.get_rng_state()}
        drawn |= {f"z of view {view}": z for view, z in enumerate(output.embeddings)}
        trace.append({"loss": loss.detach(), **gradients, **state, **drawn})
    return trace


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_step_is_simsiam_to_the_bit(precision: str) -> None:
    def autocast() -> object:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")

    ours = train(network(Alternation(k=1)), batches(3), autocast)
    simsiam = train(network(create_component("gradient", "stop-gradient")), batches(3), autocast)
    for mine, its in zip(ours, simsiam, strict=True):
        assert mine.keys() == its.keys()
        for name, value in its.items():  # losses, gradients, weights, running statistics, draws
            assert torch.equal(mine[name], value), name


def test_targets_are_those_of_the_weights_at_the_blocks_start() -> None:
    """Seven steps in blocks of three: written out with a frozen copy of the encoder for each."""
    siamese = network(Alternation(k=3)).double()
    siamese.backbone[3].p = 0.0
    data = [Batch([x.double() for x in batch.views]) for batch in batches(7)]
    losses = [row["loss"] for row in train(copy.deepcopy(siamese), data)]

    optimizer = torch.optim.SGD(siamese.parameters(), lr=0.5, momentum=0.9)
    for step, (batch, loss) in enumerate(zip(data, losses, strict=True)):
        if step % 3 == 0:
            frozen = copy.deepcopy(siamese)
        z1, z2 = (frozen.projector(frozen.backbone(x)).detach() for x in batch.views)
        p1, p2 = (siamese.predict(siamese.encode(x)) for x in batch.views)
        expected = -functional.cosine_similarity(p1, z2).mean() / 2
        expected = expected - functional.cosine_similarity(p2, z1).mean() / 2
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
    assert (
        losses[1]
        != train(network(create_component("gradient", "stop-gradient")).double(), data)[1]["loss"]
    )


def test_preparing_changes_nothing_and_holds_one_batch_at_a_time() -> None:
    class Replaced(nn.Module):
        """A running mean that is not updated in place."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.mean = 0.9 * self.mean + 0.1 * x.mean()
            return x

    siamese = network(Alternation(k=4))
    siamese.backbone.append(Replaced())
    siamese(next(iter(prepared(siamese, batches(1)))))  # so that there are statistics
    before = {name: value.clone() for name, value in siamese.state_dict().items()}
    where = {name: buffer.data_ptr() for name, buffer in siamese.named_buffers()}
    generator = torch.get_rng_state()

    asked: list[int] = []

    def streamed() -> Iterator[Batch]:
        for number, batch in enumerate(batches(4)):
            asked.append(len(siamese.gradient._targets))
            assert asked == list(range(number + 1))  # the one before is done with
            yield batch

    with torch.no_grad():
        siamese.gradient.prepare_block(siamese, streamed())
    assert asked == [0, 1, 2, 3]
    assert torch.equal(torch.get_rng_state(), generator)
    assert before.keys() == siamese.state_dict().keys()  # no target in there
    for name, value in siamese.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert where == {name: buffer.data_ptr() for name, buffer in siamese.named_buffers()}


def prepared(siamese: Siamese, data: Iterable[Batch]) -> Iterable[Batch]:
    with torch.no_grad():
        siamese.gradient.prepare_block(siamese, iter(data))
    return data


def test_statistics_are_restored_where_a_batch_cannot_be_had() -> None:
    siamese = network(Alternation(k=2))
    before = copy.deepcopy(siamese.state_dict())

    def broken() -> Iterator[Batch]:
        yield batches(1)[0]
        raise OSError

    with torch.no_grad(), pytest.raises(OSError):  # noqa: PT011
        siamese.gradient.prepare_block(siamese, broken())
    assert all(torch.equal(value, before[name]) for name, value in siamese.state_dict().items())


def test_a_step_that_was_not_prepared_is_refused() -> None:
    siamese = network(Alternation(k=2))
    data = batches(3)
    with pytest.raises(InputError, match=r"no targets.*\n.*prepare_block\(siamese, batches\)"):
        siamese(data[0])
    prepared(siamese, data[:2])
    siamese(data[0])
    prepared(siamese, data[1:])  # a new block forgets what is left of the old one
    siamese(data[1])
    siamese(data[2])
    with pytest.raises(InputError, match="no targets"):
        siamese(data[0])


def test_a_block_is_k_steps_or_an_epoch() -> None:
    assert create_component("gradient", "alternation").blocks == 10
    assert Alternation(k=100, steps_per_epoch=62).blocks == 100
    assert Alternation(k="epoch", steps_per_epoch=62).blocks == 62
    assert Alternation(k="epoch").blocks == 0


def test_targets_of_long_blocks_are_kept_in_memory_of_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved: list[Tensor] = []
    cpu = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda z: moved.append(z) or cpu(z))
    siamese = network(Alternation(k=2))
    prepared(siamese, batches(2))
    assert not moved
    of_a_block = 2 * 2 * 6 * 12 * 4  # k views N dim, in fp32
    monkeypatch.setattr(gradients, "_ON_DEVICE", of_a_block)
    prepared(siamese, batches(2))
    assert not moved
    monkeypatch.setattr(gradients, "_ON_DEVICE", of_a_block // 2)
    prepared(siamese, batches(2))
    assert len(moved) == 2
