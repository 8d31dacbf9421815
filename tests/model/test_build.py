"""Building the five parts: what the host gives them, and parts that break the contract."""

from __future__ import annotations

import pytest
import torch
from small_parts import parts
from torch import Tensor, nn

from simsiam_zoo.catalog import (
    Catalog,
    Component,
    Param,
    Plugin,
    catalog,
    create_component,
)
from simsiam_zoo.errors import PluginError
from simsiam_zoo.model.build import build
from simsiam_zoo.model.siamese import (
    GradientPolicy,
    Part,
    Siamese,
    StepOutput,
)


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
