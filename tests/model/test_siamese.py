"""The model against the paper's algebra, closed forms and parts that break the contract.

`test_paper.py` holds it against the paper's pseudocode.
"""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from simsiam_zoo.catalog import (
    Catalog,
    Component,
    Param,
    Plugin,
    Resolved,
    catalog,
    create_component,
)
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

SMALL = {
    "backbone": "resnet10t",
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=24",
    "predictor": "mlp",
    "gradient": "stop-gradient",
    "loss": "cosine",
}


def parts(source: Catalog | None = None, **specs: str) -> dict[str, Resolved]:
    source = source or catalog()
    return {kind: source.resolve(kind, spec) for kind, spec in (SMALL | specs).items()}


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


def test_build_leaves_the_generator_and_the_running_statistics_alone() -> None:
    torch.manual_seed(5)
    siamese = build(parts(), image_size=32)
    after = torch.get_rng_state()

    torch.manual_seed(5)
    by_hand = nn.ModuleDict(
        {
            "backbone": create_component("backbone", "resnet10t", image_size=32),
            "projector": create_component(
                "projector", "mlp", in_dim=512, layers=2, hidden_dim=32, out_dim=24
            ),
            "predictor": create_component("predictor", "mlp", dim=24),
        }
    )
    assert torch.equal(after, torch.get_rng_state())
    assert siamese.training
    for name, value in by_hand.state_dict().items():
        assert torch.equal(siamese.state_dict()[name], value), name


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


# Parts of a third party, good and bad; its plugin points here.


class Recorder(GradientPolicy):
    def __init__(self, *, dim: int, dataset_size: int, steps_per_epoch: int, steps: int) -> None:
        super().__init__()
        self.host = (dim, dataset_size, steps_per_epoch, steps)
        self.seen: list[Siamese] = []

    def setup(self, siamese: Siamese) -> None:
        self.seen.append(siamese)


class Honest(nn.Module):
    def __init__(self, *, in_dim: int) -> None:
        super().__init__()
        self.out_dim = in_dim

    def forward(self, x: Tensor) -> Tensor:
        return x


class NoOutDim(nn.Identity):
    pass


class WrongOutDim(Honest):
    def __init__(self, *, in_dim: int) -> None:
        super().__init__(in_dim=in_dim)
        self.out_dim = in_dim - 1


class Lies(Honest):
    """Its descriptor declares `width`, which this does not take."""


class NotPooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class PoolsTheBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(0, 2, 3))[None]


class GivesTuple(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x.mean(dim=(2, 3)),)


class GivesNan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / torch.zeros(())


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("a stranger's mistake")


class RaisesInSetup(Part, nn.Identity):
    def setup(self, siamese: Siamese) -> None:
        raise KeyError("a stranger's mistake")


class UnheardHook(nn.Identity):
    def after_step(self, siamese: Siamese, output: StepOutput, step: int, steps: int) -> None:
        raise AssertionError("nobody calls it")


class UnheardMinimum(nn.Module):
    minimum = 0.0


class Halves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, ::2]


class PerSampleLoss(nn.Module):
    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square().sum(dim=1)


def no_module() -> str:
    return "no module"


def stranger(kind: str, target: str, params: tuple[Param, ...] = ()) -> Catalog:
    component = Component(kind, "bad", f"{__name__}:{target}", "A stranger's", params)
    plugin = Plugin("bad", __name__, "bad-zoo", "1.0", "v1", components=(component,))
    return Catalog((*catalog().plugins, plugin))


def test_build_passes_what_the_host_knows_and_sets_up_once() -> None:
    siamese = build(parts(stranger("gradient", "Recorder"), gradient="bad"), 32, 4000, 62, 868)
    assert siamese.gradient.host == (24, 4000, 62, 868)
    assert siamese.gradient.seen == [siamese]


@pytest.mark.parametrize(
    ("kind", "target", "text"),
    [
        ("backbone", "NotPooled", r"gave \[2, 3, 32, 32\] for .*, not \[2, features\]"),
        ("backbone", "PoolsTheBatch", r"gave \[1, 3\]"),
        ("backbone", "GivesTuple", "gave a tuple"),
        ("backbone", "GivesNan", "not finite"),
        ("backbone", "Raises", 'KeyError: "a stranger\'s mistake"'),
        ("backbone", "no_module", "made a str"),
        ("projector", "NoOutDim", "out_dim None"),
        ("projector", "WrongOutDim", r"gave \[2, 512\] for \[2, 512\], not \[2, 511\]"),
        ("predictor", "Halves", r"gave \[2, 12\] for \[2, 24\], not \[2, 24\]"),
        ("predictor", "GivesNan", "not finite"),
        ("predictor", "RaisesInSetup", "failed in setup"),
        ("predictor", "UnheardHook", r"has after_step, which counts in subclasses of .*\.Part"),
        ("loss", "UnheardMinimum", r"has minimum, which counts in subclasses of .*\.Loss"),
        ("gradient", "NotPooled", "GradientPolicy"),
        ("loss", "PerSampleLoss", r"gave \[2\] for \[2, 24\] and \[2, 24\], not \[\]"),
        ("loss", "missing", "bad cannot be used"),
    ],
)
def test_a_part_that_breaks_the_contract_is_named(kind: str, target: str, text: str) -> None:
    with pytest.raises(PluginError, match=text) as caught:
        build(parts(stranger(kind, target), **{kind: "bad"}), image_size=32)
    assert kind in str(caught.value)
    assert "bad" in str(caught.value)


def test_a_factory_that_lacks_a_declared_param_is_named() -> None:
    lying = stranger("projector", "Lies", (Param("width", int, 8),))
    with pytest.raises(PluginError, match=r"projector bad-zoo/bad.*width"):
        build(parts(lying, projector="bad"), image_size=32)


def test_a_size_that_the_backbone_cannot_take_is_told() -> None:
    way_out = r"inception_v3.*\n.*takes 96 px: --set data\.image_size=96"
    with torch.device("meta"), pytest.raises(PluginError, match=way_out):
        build(parts(backbone="inception_v3"), image_size=32)
