"""Backbones against torchvision's, against plain timm, and through one step of training."""

import functools
import itertools
import math

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from simsiam_zoo.catalog import catalog, create_component
from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.model.backbones import timm_backbone, timm_recipe
from simsiam_zoo.model.build import build
from simsiam_zoo.model.siamese import Batch

WIDTHS = {
    "resnet10t": 512,
    "resnet18": 512,
    "resnet50": 2048,
    "densenet121": 1024,
    "vgg11_bn": 512,
    "vgg16_bn": 512,
    "mobilenetv3_small_100": 1024,
    "vit_tiny_patch16_224": 192,
    "convnext_atto": 320,
    "resnet18_cifar": 512,
    "resnet50_cifar": 2048,
    "resnet_small": 128,
    "densenet_small": 120,
    "vgg_small": 128,
    "resnet_small:widths=16/24/40/72,depth=2,stride=1": 72,
}
SMALL = "resnet_small:widths=16/24/40/72,depth=2,stride=1"
FOR_32_PX = ("resnet18_cifar", "resnet50_cifar", "resnet_small", "densenet_small")


@functools.cache
def backbone(name: str, image_size: int = 32) -> nn.Module:
    torch.manual_seed(0)
    return catalog().resolve("backbone", name).create(image_size=image_size)


def images(n: int, size: int) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def features(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(x)


@pytest.mark.parametrize(("name", "width"), WIDTHS.items())
def test_a_backbone_at_32_px_is_fitted_and_trains_a_step(name: str, width: int) -> None:
    torch.manual_seed(0)
    specs = {
        "backbone": name,
        "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
        "predictor": "mlp",
        "gradient": "stop-gradient",
        "loss": "cosine",
    }
    parts = {kind: catalog().resolve(kind, spec) for kind, spec in specs.items()}
    siamese = build(parts, image_size=32)
    assert siamese.in_dim == width
    first = next(iter(siamese.backbone.parameters()))
    if name.startswith("vit"):  # its first parameter is the class token
        first = siamese.backbone.patch_embed.proj.weight
    optimizer = torch.optim.SGD(siamese.parameters(), lr=0.05)
    loss = siamese(Batch([images(4, 32), images(4, 32).flip(3)]))
    loss.backward()
    before = first.detach().clone()
    optimizer.step()
    assert loss.isfinite()
    assert first.grad.abs().max() > 0
    assert not torch.equal(first, before)
    assert all(parameter.isfinite().all() for parameter in siamese.parameters())


@pytest.mark.parametrize(
    "name", [name for name in WIDTHS if not name.startswith((*FOR_32_PX, "vgg_small"))]
)
def test_a_backbone_at_224_px_gives_pooled_features(name: str) -> None:
    y = features(backbone(name, 224), images(1, 224))
    assert y.shape == (1, WIDTHS[name])
    assert y.isfinite().all()


@pytest.mark.parametrize("size", [32, 224])
def test_vgg_is_its_pooled_convolutions_and_holds_nothing_else(size: int) -> None:
    ours = backbone("vgg11_bn")
    vgg = torchvision.models.vgg
    theirs = nn.ModuleDict({"features": vgg.make_layers(vgg.cfgs["A"], batch_norm=True)})
    theirs.load_state_dict(ours.state_dict())  # strict: the convolutions' keys and no others
    x = images(2, size)
    pooled = features(theirs["features"], x).mean(dim=(2, 3))
    torch.testing.assert_close(features(ours, x), pooled)


@pytest.mark.parametrize(
    "name", ["resnet10t", "resnet18", "resnet50", "resnet18_cifar", "resnet50_cifar"]
)
def test_only_the_last_bn_scale_of_each_residual_block_starts_at_zero(name: str) -> None:
    model = backbone(name)
    last = {
        max(name for name, module in block.named_children() if isinstance(module, nn.BatchNorm2d))
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4)
        for block in stage
    }
    assert last == ({"bn3"} if "50" in name else {"bn2"})
    for key, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            in_block = key.startswith("layer") and key.count(".") == 2
            zero = in_block and key.rpartition(".")[2] in last
            assert torch.equal(
                module.weight, torch.full_like(module.weight, 0.0 if zero else 1.0)
            ), key


def test_the_cifar_stem_keeps_32_px_and_is_torchvisions_with_that_stem() -> None:
    ours = backbone("resnet18_cifar")
    shapes = []
    hook = ours.layer1.register_forward_pre_hook(lambda _, x: shapes.append(tuple(x[0].shape)))
    x = images(2, 32)
    y = features(ours, x)
    hook.remove()
    assert shapes == [(2, 64, 32, 32)]

    theirs = torchvision.models.resnet18()
    theirs.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    theirs.maxpool = theirs.fc = nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(y, features(theirs, x))
    std = ours.conv1.weight.std().item()
    torch.testing.assert_close(std, math.sqrt(2 / (9 * 64)), rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        ("resnet_small", [(32, 14), (32, 14), (64, 7), (128, 4)]),
        ("resnet_small:widths=24/48,stride=1", [(24, 28), (24, 28), (48, 14)]),
        (SMALL, [(16, 28), (16, 28), (24, 14), (40, 7), (72, 4)]),
    ],
)
def test_a_small_resnet_has_the_stages_that_were_asked_for(spec: str, shapes: list) -> None:
    model = catalog().resolve("backbone", spec).create(image_size=28)
    names = ["maxpool", "layer1", "layer2", "layer3", "layer4"][: len(shapes)]
    seen: list[tuple[int, int]] = []
    for name in names:
        layer = getattr(model, name)
        layer.register_forward_hook(
            lambda *given: seen.append((given[2].shape[1], given[2].shape[2]))
        )
    y = features(model, images(2, 28))
    assert seen == shapes
    assert y.shape == (2, shapes[-1][0])
    depth = 2 if spec == SMALL else 1
    blocks = [block for name in names[1:] for block in getattr(model, name)]
    assert len(blocks) == depth * (len(shapes) - 1)
    weights = sum(
        module.weight.numel() for module in model.modules() if isinstance(module, nn.Conv2d)
    )
    assert weights == 27 * shapes[0][0] + sum(
        9 * wide * (before + wide * (2 * depth - 1)) + (before * wide if before != wide else 0)
        for (before, _), (wide, _) in itertools.pairwise(shapes)
    )


def test_a_small_vgg_is_torchvisions_convolutions_of_those_widths() -> None:
    ours = catalog().resolve("backbone", "vgg_small:widths=8/12/20,depth=2").create(image_size=28)
    theirs = torchvision.models.vgg.make_layers([8, 8, "M", 12, 12, "M", 20, 20, "M"], True)
    theirs.load_state_dict(ours.state_dict())  # strict: the same layers in the same places
    x = images(2, 28)
    torch.testing.assert_close(features(ours, x), features(theirs, x).mean(dim=(2, 3)))
    std = ours[0].weight.std().item()
    torch.testing.assert_close(std, math.sqrt(2 / (9 * 8)), rtol=0.15, atol=0)


@pytest.mark.parametrize("widths", ["15/32", "32/64/128/256/512"])
def test_widths_that_make_no_small_resnet_are_refused(widths: str) -> None:
    with pytest.raises(InputError, match="one to four, the first of them even"):
        catalog().resolve("backbone", f"resnet_small:widths={widths}").create(image_size=32)


@pytest.mark.parametrize(
    "name",
    ["resnet10t", "resnet18", "resnet50", "densenet121", "mobilenetv3_small_100", "convnext_atto"],
)
def test_the_state_dict_loads_in_plain_timm(name: str) -> None:
    ours = backbone(name)
    plain = timm.create_model(name, num_classes=0)
    plain.load_state_dict(ours.state_dict())
    x = images(2, 32)
    assert torch.equal(features(plain, x), features(ours, x))


@pytest.mark.parametrize(
    "name",
    ["resnet18", "vit_tiny_patch16_224", "vgg11_bn", *FOR_32_PX, SMALL],
)
def test_a_backbones_recipe_is_code_that_rebuilds_it(name: str) -> None:
    ours = backbone(name)
    namespace: dict[str, nn.Module] = {}
    exec(timm_recipe(ours).code, namespace)
    rebuilt = namespace["model"]
    rebuilt.load_state_dict(ours.state_dict())
    x = images(2, 32)
    assert torch.equal(features(rebuilt, x), features(ours, x))
    rebuilt.reset_classifier(10)
    assert rebuilt(x).shape == (2, 10)


def test_stochastic_depth_is_what_was_asked_for() -> None:
    def rates(name: str, **options: float) -> set[float]:
        with torch.device("meta"):
            model = create_component("backbone", name, image_size=224, **options)
        return {round(each.drop_prob, 3) for each in model.modules() if hasattr(each, "drop_prob")}

    assert max(rates("resnet18", drop_path_rate=0.2)) == 0.2
    assert max(rates("swin_tiny_patch4_window7_224"), default=0) == 0  # timm's own default: 0.1
    with pytest.raises(InputError, match=r"densenet121 has no stochastic depth"):
        rates("densenet121", drop_path_rate=0.2)


def test_unknown_models_are_refused_without_going_online() -> None:
    with pytest.raises(InputError, match="Did you mean resnet50"):
        timm_backbone(name="resnet5O", image_size=32, drop_path_rate=0.0)
    with pytest.raises(InputError, match="no model"):
        timm_backbone(name="hf-hub:timm/resnet18.a1_in1k", image_size=32, drop_path_rate=0.0)


def sized(name: str, image_size: int, *view_sizes: int) -> nn.Module:
    specs = {
        "backbone": name,
        "projector": "mlp:layers=2,hidden_dim=8,out_dim=8",
        "predictor": "none",
        "gradient": "stop-gradient",
        "loss": "cosine",
    }
    parts = {kind: catalog().resolve(kind, spec) for kind, spec in specs.items()}
    torch.manual_seed(0)
    return build(parts, image_size, view_sizes=view_sizes).backbone


def test_a_vit_takes_views_of_several_sizes_and_is_the_same_vit() -> None:
    ours, usual = (sized("vit_tiny_patch16_224", 64, *more) for more in ((64, 32), ()))
    assert ours.state_dict().keys() == usual.state_dict().keys()
    large, small = images(3, 64), images(3, 32)
    assert torch.equal(features(ours, large), features(usual, large))
    theirs = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, img_size=64, dynamic_img_size=True
    )
    theirs.load_state_dict(usual.state_dict())
    torch.testing.assert_close(features(ours, small), features(theirs, small))
    with pytest.raises(AssertionError):
        features(usual, small)


@pytest.mark.parametrize(
    ("name", "small", "error", "said"),
    [
        ("mixer_s16_224", 32, InputError, "made for 64 px alone, and there are views of 32 px"),
        (
            "vit_tiny_patch16_224",
            24,
            PluginError,
            r"failed on \[2, 3, 24, 24\]",
        ),
    ],
)
def test_a_backbone_that_cannot_take_the_small_views_says_so(
    name: str, small: int, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        sized(name, 64, 64, small)
