"""The guided stop-gradient against the paper's four cases, image by image."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam_zoo.model.losses import CosineLoss
from simsiam_zoo.plugin import Batch, Siamese
from simsiam_zoo_dynamics.guided import GuidedStopGradient, first_is_nearer

N, DIM = 8, 5


def network() -> Siamese:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh())
    predictor, policy = nn.Linear(DIM, DIM), GuidedStopGradient()
    head, loss = nn.Linear(8, DIM), CosineLoss()
    return Siamese(backbone, head, predictor, policy, loss, in_dim=8, dim=DIM).double().train()


def batch(n: int = N) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch([*torch.randn(2, n, 3, 2, 2, dtype=torch.float64, generator=generator)])


def test_the_loss_is_the_papers_case_by_case() -> None:
    siamese = network()
    z = [siamese.projector(siamese.backbone(x)) for x in batch().views]
    p = [siamese.predictor(each) for each in z]

    def d(side: int, image: int) -> Tensor:
        """D(p of this side, stopgrad(z of the other))."""
        return -functional.cosine_similarity(p[side][image], z[1 - side][image].detach(), dim=0)

    cases, expected = set(), torch.zeros((), dtype=torch.float64)
    for a in range(N // 2):
        b = a + N // 2
        distances = {
            (i, j): math.dist(z[i][a].tolist(), z[j][b].tolist()) for i in (0, 1) for j in (0, 1)
        }
        i, j = min(distances, key=lambda pair: distances[pair])
        cases.add((i, j))
        expected = expected + (d(i, a) / 2 + d(j, b) / 2) / (N // 2)
    assert len(cases) >= 3  # the batch has images for nearly all cases
    loss = siamese(batch())
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    weights = [*siamese.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(loss, weights),
        torch.autograd.grad(expected, weights),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize(("own", "other"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_nearest_views_of_two_images_are_predicted_from(own: int, other: int) -> None:
    """Far apart but for one view of each."""
    views = torch.tensor([[[0.0, 10], [0, -10]], [[20, 0], [-20, 0]]])  # [view, image, dim]
    views[own, 0] = torch.tensor([1.0, 1.0])
    views[other, 1] = torch.tensor([1.0, 2.0])
    assert first_is_nearer(views[0], views[1]).tolist() == [own == 0, other == 0]


def test_targets_are_constants_and_each_image_has_one_view_on_each_side() -> None:
    siamese = network()
    ((prediction, target),) = siamese.gradient(siamese, batch()).pairs
    assert prediction.requires_grad
    assert not target.requires_grad
    z = [siamese.projector(siamese.backbone(x)) for x in batch().views]
    p = [siamese.predictor(each) for each in z]
    for image in range(N):
        side = 0 if torch.equal(prediction[image], p[0][image]) else 1
        torch.testing.assert_close(prediction[image], p[side][image], rtol=0, atol=0)
        torch.testing.assert_close(target[image], z[1 - side][image], rtol=0, atol=0)


def test_without_gradient_into_the_far_views() -> None:
    """∂L/∂z of a view that is a target is 0."""
    z1, z2 = (z.requires_grad_() for z in torch.randn(2, N, DIM, dtype=torch.float64))

    class Given(nn.Module):
        def encode(self, x: Tensor) -> Tensor:
            return x

        predict = encode

    ((p, target),) = GuidedStopGradient()(Given(), Batch([z1, z2])).pairs
    g1, g2 = torch.autograd.grad(CosineLoss()(p, target), (z1, z2))
    first = first_is_nearer(z1.detach(), z2.detach())
    assert 0 < first.sum() < N
    assert torch.equal(g1.abs().sum(dim=1) > 0, first)
    assert torch.equal(g2.abs().sum(dim=1) > 0, ~first)


def test_swapping_the_views_changes_nothing_and_odd_batches_are_taken() -> None:
    siamese = network()
    for n in (N, 7, 3, 2):
        plain = siamese(batch(n))
        swapped = siamese(Batch(batch(n).views[::-1]))
        torch.testing.assert_close(swapped, plain, rtol=1e-12, atol=0)


def test_ties_and_half_precision_are_decided() -> None:
    same = torch.ones(N, DIM)
    assert first_is_nearer(same, same).all()
    z1, z2 = torch.randn(2, N, DIM).bfloat16()
    expected = first_is_nearer(z1.float(), z2.float())
    assert torch.equal(first_is_nearer(z1, z2), expected)
