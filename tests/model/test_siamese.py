"""The model against the paper's algebra and closed forms.

`test_paper.py` holds it against the paper's pseudocode.
"""

import pytest
import torch
import torchvision
from small_parts import parts
from torch import Tensor, nn

from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.model.build import build
from simsiam_zoo.model.siamese import (
    Batch,
    GradientPolicy,
    Part,
    Siamese,
    StepOutput,
    parameter_counts,
)


def views(count: int, n: int = 8, size: int = 32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(n, 3, size, size, dtype=torch.float64, generator=generator)
        for _ in range(count)
    ]


def scatter_bn_scales(siamese: nn.Module) -> None:
    """So that no residual branch is switched off by its zero scale."""
    generator = torch.Generator().manual_seed(2)
    for module in siamese.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
            for parameter in (module.weight, module.bias):
                parameter.data.copy_(0.5 + torch.rand(parameter.shape, generator=generator))


def small(seed: int = 0, **specs: str) -> Siamese:
    torch.manual_seed(seed)
    siamese = build(parts(**specs), image_size=32).double()
    scatter_bn_scales(siamese)
    return siamese


def gradients(siamese: Siamese, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    siamese.zero_grad()
    loss = siamese(batch)
    loss.backward()
    named = siamese.named_parameters()
    return loss.detach(), {name: p.grad.clone() for name, p in named if p.grad is not None}


def test_without_a_predictor_stop_gradient_halves_the_gradient() -> None:
    batch = Batch(views(2))
    stopped, half = gradients(small(predictor="none"), batch)
    flowing, whole = gradients(small(predictor="none", gradient="none"), batch)
    assert stopped == flowing
    for name, gradient in whole.items():
        torch.testing.assert_close(2 * half[name], gradient, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("loss", ["cosine", "cross-entropy", "mse"])
def test_the_loss_does_not_know_the_order_of_views_and_samples(loss: str) -> None:
    x1, x2 = views(2)
    siamese = small(loss=loss)
    order = torch.randperm(len(x1), generator=torch.Generator().manual_seed(3))
    reference = siamese(Batch([x1, x2]))
    assert siamese(Batch([x2, x1])) == reference
    torch.testing.assert_close(
        siamese(Batch([x1[order], x2[order]])), reference, rtol=1e-12, atol=0
    )


def test_each_view_is_normalised_by_its_own_statistics() -> None:
    siamese = small()
    x1, x2 = views(2)
    (p1, _), (p2, _) = siamese.gradient(siamese, Batch([x1, x2])).pairs
    (same, _), (other, _) = siamese.gradient(siamese, Batch([x1, 3 * x2.relu() + 1])).pairs
    assert torch.equal(p1, same)
    assert not torch.allclose(p2, other)
    together = siamese.predict(siamese.encode(torch.cat([x1, 3 * x2.relu() + 1])))
    assert not torch.allclose(together[: len(x1)], p1, rtol=0.01)


def test_the_loss_is_taken_in_float32_outside_autocast_and_float64_stays() -> None:
    seen = []

    class Spy(nn.Module):
        def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
            product = prediction @ target.T  # autocast would make this bf16
            seen.append((prediction.dtype, target.dtype, product.dtype))
            return product.mean()

    torch.manual_seed(0)
    siamese = build(parts(), image_size=32)
    siamese.loss = Spy()
    batch = Batch([x.float() for x in views(2)])
    with torch.autocast("cpu", torch.bfloat16):
        assert siamese.predict(siamese.encode(batch.views[0])).dtype == torch.bfloat16
        assert siamese(batch).dtype == torch.float32
    assert set(seen) == {(torch.float32,) * 3}
    seen.clear()
    siamese.double()(Batch(views(2)))
    assert set(seen) == {(torch.float64,) * 3}


def test_a_step_gives_its_loss_and_the_detached_embeddings_of_its_views() -> None:
    siamese = small()
    batch = Batch(views(2))
    loss, output = siamese.step(batch)
    assert loss.requires_grad
    assert torch.equal(loss, siamese(batch))
    assert len(output.pairs) == 2
    for x, z in zip(batch.views, output.embeddings, strict=True):
        assert torch.equal(z, siamese.encode(x))
    sides = [side for pair in output.pairs for side in pair]
    assert not any(each.requires_grad for each in [*sides, *output.embeddings])


class AllAtOnce(GradientPolicy):
    """Encodes both views in one pass: their embeddings are what it states."""

    def __init__(self, states: bool) -> None:
        super().__init__()
        self.states = states

    def forward(self, siamese: Siamese, batch: Batch) -> StepOutput | list[tuple[Tensor, Tensor]]:
        z1, z2 = siamese.encode(torch.cat(batch.views)).chunk(2)
        pairs = [(siamese.predict(z1), z2.detach()), (siamese.predict(z2), z1.detach())]
        return StepOutput(pairs, (z1, z2)) if self.states else pairs


def test_embeddings_are_what_the_policy_states_and_of_a_bare_list_there_are_none() -> None:
    stated, bare = small(), small()
    stated.gradient, bare.gradient = AllAtOnce(True), AllAtOnce(False)
    batch = Batch(views(2))
    (loss, output), (same, nothing) = stated.step(batch), bare.step(batch)
    assert torch.equal(loss, same)
    z = stated.encode(torch.cat(batch.views))
    assert torch.equal(torch.cat([*output.embeddings]), z)
    assert nothing.embeddings == []


def test_a_policy_that_forgets_the_list_is_told() -> None:
    class OnePair(GradientPolicy):
        def forward(self, siamese: Siamese, batch: Batch) -> tuple[Tensor, Tensor]:
            z1, z2 = (siamese.encode(x) for x in batch.views)
            return z1, z2

    siamese = small()
    siamese.gradient = OnePair()
    with pytest.raises(PluginError, match="OnePair gave a tuple, not a StepOutput or a list"):
        siamese(Batch(views(2, n=2)))


@pytest.mark.parametrize(
    ("part", "gives", "said"),
    [
        ("gradient", lambda z: [], "gave no pairs"),
        ("gradient", lambda z: [z, z], r"gave no pairs \(prediction, target\)"),
        ("gradient", lambda z: [(z, z[:1])], r"a prediction \[2, \d+\] and a target \[1, \d+\]"),
        ("predictor", lambda z: z[:, 1:], r"predictor Wrong gave \[2, \d+\] for \[2, \d+\]"),
        ("loss", lambda p: p.sum(1), r"loss Wrong gave \[2\], not a scalar"),
    ],
)
def test_a_part_that_breaks_the_contract_in_training_alone_is_told(part, gives, said) -> None:
    """Not on the two samples of the dry run, in eval mode."""
    siamese = small()

    class Wrong(GradientPolicy):
        def forward(self, first, second=None):  # a policy's, a predictor's or a loss's
            return gives(siamese.encode(second.views[0]) if part == "gradient" else first)

    setattr(siamese, part, Wrong())
    with pytest.raises(PluginError, match=said):
        siamese(Batch(views(2, n=2)))


def test_hooks_are_those_of_parts_that_define_one() -> None:
    class Counting(Part, nn.Identity):
        calls = 0

        def after_step(self, siamese: Siamese, output: StepOutput, step: int, steps: int) -> None:
            assert not torch.is_grad_enabled()
            self.calls += 1

    siamese = small()
    assert siamese.parts_after_step() == []  # the policy and the loss have empty ones
    siamese.predictor = Counting()
    assert siamese.parts_after_step() == [siamese.predictor]
    siamese.after_step(siamese.step(Batch(views(2)))[1], 0, 1)
    assert siamese.predictor.calls == 1


def test_a_batch_with_another_number_of_views_is_refused() -> None:
    with pytest.raises(InputError, match=r"has 2 views.* compares 4"):
        small(gradient="stop-gradient:pairs=2")(Batch(views(2)))


def test_parameter_counts_of_the_papers_imagenet_model() -> None:
    imagenet = {"backbone": "resnet50", "projector": "mlp", "predictor": "mlp"}
    with torch.device("meta"):
        siamese = build(parts(**imagenet), image_size=224)
        resnet = torchvision.models.resnet50()
    assert (siamese.in_dim, siamese.dim) == (2048, 2048)
    assert parameter_counts(siamese) == {
        "backbone": sum(p.numel() for p in resnet.parameters()) - (2048 * 1000 + 1000),
        "projector": 3 * 2048 * 2048 + 2 * (2 * 2048),  # the output's BN has no affine
        "predictor": 2048 * 512 + 2 * 512 + 512 * 2048 + 2048,
        "gradient": 0,
        "loss": 0,
    }
