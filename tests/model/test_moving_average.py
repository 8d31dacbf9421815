"""The moving average against its definition, kept in a plain dictionary; and over two processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam_zoo.catalog import create_component
from simsiam_zoo.errors import InputError
from simsiam_zoo.model import gradients
from simsiam_zoo.model.heads import NoPredictor
from simsiam_zoo.model.losses import CosineLoss
from simsiam_zoo.model.siamese import Batch, Siamese
from simsiam_zoo.runtime.distributed import gather_samples, mean

IMAGES, DIM = 7, 5


def network(**params: object) -> Siamese:
    """Without BN, so that one process and two compute the same."""
    torch.manual_seed(0)
    policy = create_component("gradient", "moving-average", dim=DIM, dataset_size=IMAGES, **params)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh())
    return Siamese(
        backbone, nn.Linear(8, DIM), NoPredictor(), policy, CosineLoss(), in_dim=8, dim=DIM
    ).double()


def batches(steps: int = 6, n: int = 4) -> list[Batch]:
    """Images are met anew in the order of an epoch, some of them in batches with others."""
    generator = torch.Generator().manual_seed(1)
    orders = [torch.randperm(IMAGES, generator=generator)[:n] for _ in range(steps)]
    views = [
        [torch.randn(n, 3, 2, 2, dtype=torch.float64, generator=generator) for _ in range(2)]
        for _ in range(steps)
    ]
    return [Batch(each, ids) for each, ids in zip(views, orders, strict=True)]


def descend(siamese: Siamese, loss: Tensor) -> None:
    parameters = list(siamese.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.data -= 0.5 * mean(gradient)


def train(siamese: Siamese, data: list[Batch]) -> list[Tensor]:
    """Descend the mean of all processes' gradients; the losses are this one's."""
    losses = []
    for batch in data:
        loss = siamese(batch)
        descend(siamese, loss)
        losses.append(loss.detach())
    return losses


@pytest.mark.parametrize(("momentum", "normalize"), [(0.8, True), (0.3, False)])
def test_targets_are_the_moving_averages_of_each_image(momentum: float, normalize: bool) -> None:
    siamese = network(momentum=momentum, normalize=normalize)
    eta: dict[int, Tensor] = {}
    for batch in batches():
        z1, z2 = (siamese.projector(siamese.backbone(x)) for x in batch.views)
        for row, image in enumerate(batch.ids.tolist()):
            both = [z[row].detach() for z in (z1, z2)]
            z = sum(z / z.norm() if normalize else z for z in both) / 2
            eta[image] = momentum * eta[image] + (1 - momentum) * z if image in eta else z
        target = torch.stack([eta[image] for image in batch.ids.tolist()])

        (p1, found1), (p2, found2) = siamese.gradient(siamese, batch).pairs
        torch.testing.assert_close((p1, p2), (z1, z2), rtol=0, atol=0)
        assert found1 is found2
        assert not found1.requires_grad
        torch.testing.assert_close(found1, target, rtol=1e-12, atol=1e-15)
        loss = -sum(functional.cosine_similarity(p, found1).mean() for p in (p1, p2)) / 2
        descend(siamese, loss)
    assert len(eta) == IMAGES
    assert max(torch.bincount(torch.cat([b.ids for b in batches()]))) > 3  # averages of some depth
    kept = siamese.gradient.per_sample_state()
    table = torch.stack([eta[image] for image in range(IMAGES)])
    torch.testing.assert_close(kept["average"], table, rtol=1e-12, atol=1e-15)
    assert torch.equal(kept["times"], torch.bincount(torch.cat([b.ids for b in batches()])).int())


def test_the_loss_does_not_know_the_order_of_views_and_samples() -> None:
    order = torch.tensor([2, 0, 3, 1])
    plain = batches()
    swapped = [Batch(batch.views[::-1], batch.ids) for batch in plain]
    permuted = [Batch([x[order] for x in batch.views], batch.ids[order]) for batch in plain]
    expected = train(network(), plain)
    for changed in (swapped, permuted):
        torch.testing.assert_close(train(network(), changed), expected, rtol=1e-12, atol=0)


def test_an_image_that_is_in_a_batch_twice_counts_once_with_its_mean() -> None:
    """As a replacement of a damaged image does."""
    (batch, later), siamese = batches(2), network(normalize=False)
    batch.ids, later.ids = torch.tensor([3, 1, 3, 6]), torch.tensor([3, 3, 3, 0])
    for this in (batch, later):
        z = sum(siamese.encode(x) for x in this.views) / 2
        old = siamese.gradient.average[3].clone()
        (_, eta), _ = siamese.gradient(siamese, this).pairs
        now = z[this.ids == 3].mean(dim=0)
        expected = 0.8 * old + 0.2 * now if this is later else now
        for row in torch.nonzero(this.ids == 3).flatten():
            torch.testing.assert_close(eta[row], expected, rtol=1e-12, atol=1e-15)


def test_it_is_in_no_state_dict_and_half_precision_is_averaged_in_fp32() -> None:
    siamese = network().float()
    batch = batches(1)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pairs = siamese.gradient(siamese, Batch([x.float() for x in batch.views], batch.ids)).pairs
    assert {p.dtype for p, _ in pairs} == {torch.bfloat16}
    unit = [functional.normalize(p.detach().float(), dim=1) for p, _ in pairs]
    torch.testing.assert_close(pairs[0][1], (unit[0] + unit[1]) / 2, rtol=1e-6, atol=1e-7)
    assert not siamese.gradient.state_dict()


def test_rows_are_shared_out_by_id_and_cost_nothing_on_the_meta_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []
    for rank in range(3):
        monkeypatch.setattr(gradients, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(gradients, "world_size", lambda: 3)
        with torch.device("meta"):
            policy = create_component(
                "gradient", "moving-average", dim=2048, dataset_size=1_281_167
            )
        state = policy.per_sample_state()
        assert all(value.is_meta for value in state.values())
        sizes.append({len(value) for value in state.values()})
    assert sizes == [{427_056}, {427_056}, {427_055}]


def test_without_ids_or_a_known_number_of_images_it_refuses() -> None:
    batch = batches(1)[0]
    with pytest.raises(InputError, match="needs the images' ids"):
        network()(Batch(batch.views))
    unknown = network()
    unknown.gradient = create_component("gradient", "moving-average", dim=DIM)
    with pytest.raises(InputError, match="dataset_size"):
        unknown(batch)


def test_two_processes_are_one(tmp_path: Path) -> None:
    """Each with half of every batch: the same losses, weights and averages."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen([sys.executable, __file__, tmp_path], env=env | {"RANK": str(rank)})
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()

    siamese = network()
    losses = torch.stack(train(siamese, batches()))
    of_rank = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    shared = torch.stack([each["losses"] for each in of_rank]).mean(dim=0)
    torch.testing.assert_close(shared, losses, rtol=1e-12, atol=0)
    for rank, found in enumerate(of_rank):
        for name, value in siamese.state_dict().items():
            torch.testing.assert_close(found["weights"][name], value, rtol=1e-12, atol=1e-15)
        for name, value in siamese.gradient.per_sample_state().items():
            torch.testing.assert_close(found[name], value[rank::2], rtol=1e-12, atol=1e-15)
            whole = found["tables"].get(name)  # as a checkpoint holds it, on the first rank
            assert (whole is None) == (rank == 1)
            if whole is not None:
                torch.testing.assert_close(whole, value, rtol=1e-12, atol=1e-15)


def _one_of_two(folder: Path) -> None:
    """The body of a process of the test above."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    siamese = network()
    share = slice(2 * rank, 2 * rank + 2)
    data = [Batch([x[share] for x in batch.views], batch.ids[share]) for batch in batches()]
    found = {"losses": torch.stack(train(siamese, data)), "weights": siamese.state_dict()}
    kept = siamese.gradient.per_sample_state()
    found["tables"] = {name: gather_samples(rows) for name, rows in kept.items()}
    torch.save(found | kept, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _one_of_two(Path(sys.argv[1]))
