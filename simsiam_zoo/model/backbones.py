"""Backbones: images [N, C, H, W] to pooled features [N, in_dim]; all but `vgg_small` are timm's.

timm's models are changed in place, never wrapped, so that the keys of their state dict stay timm's.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import timm
from timm.layers.classifier import ClassifierHead
from torch import nn

from simsiam_zoo.errors import InputError, PluginError, did_you_mean


@dataclass(frozen=True)
class TimmRecipe:
    """How plain timm makes the module that a backbone's state dict fits, key by key.

    A backbone that has one in its attribute `zoo_recipe` is exported as timm's.

    Args:
        name, kwargs: for `timm.create_model`, beside `num_classes=0`.
        changes: Python statements that turn that `model` into the backbone; empty for most.
    """

    name: str
    kwargs: dict[str, Any]
    changes: tuple[str, ...] = ()

    @property
    def code(self) -> str:
        """It all as Python, to be read by people: `model` is the backbone."""
        kwargs = "".join(f", {key}={value!r}" for key, value in self.kwargs.items())
        create = f"model = timm.create_model({self.name!r}, num_classes=0{kwargs})"
        imports = ("import timm", "import torch")
        return "\n".join((*imports[: 2 if self.changes else 1], create, *self.changes))


def timm_recipe(backbone: nn.Module) -> TimmRecipe | None:
    """The recipe of a backbone that was made here; None for another."""
    recipe = getattr(backbone, "zoo_recipe", None)
    return recipe if isinstance(recipe, TimmRecipe) else None


def timm_backbone(
    *,
    name: str,
    image_size: int,
    drop_path_rate: float,
    channels: int = 3,
    view_sizes: Sequence[int] = (),
) -> nn.Module:
    """Any timm model, from random weights, giving pooled features.

    Args:
        name: as in `timm.list_models()`.
        image_size: in pixels; a model that fixes its input size (a ViT) is made for it.
        drop_path_rate: stochastic depth; 0 is none, also where timm's own default is another.
        channels: of the images.
        view_sizes: of views in pixels; such a model is made for others too where timm can do that.

    Raises:
        InputError: timm has no such model, or the model has no stochastic depth, or one size alone.
        PluginError: timm cannot build it.
    """
    if not timm.is_model(name):  # keeps `hf-hub:...` out as well, for which timm would go online
        hint = did_you_mean(name, timm.list_models())
        raise InputError(f"timm {timm.__version__} has no model {name!r}", hint)
    config = timm.get_pretrained_cfg(name)
    size = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    others = sorted({*view_sizes} - {image_size})
    if size and others:
        size["dynamic_img_size"] = True
    size |= _in_chans(channels)
    try:
        model = _create(name, drop_path_rate, size)
    except InputError:
        raise
    except TypeError as error:
        if "'dynamic_img_size'" not in str(error):
            raise
        raise InputError(
            f"backbone {name} is made for {image_size} px alone, and there are views of"
            f" {', '.join(map(str, others))} px",
            "Take a ViT of timm's, a convolutional network, or views of one size.",
        ) from None
    except Exception as error:  # timm's constructors raise whatever they come upon
        raise PluginError(
            f"backbone {name} cannot be built at {image_size} px by timm {timm.__version__}"
            f" ({type(error).__name__}: {error})"
        ) from error
    model.__dict__["zoo_recipe"] = TimmRecipe(name, size, _drop_fc_trunk(model))
    return model


def _in_chans(channels: int) -> dict[str, Any]:
    """timm's keyword for other channels than three."""
    return {} if channels == 3 else {"in_chans": channels}


def _changed(model: nn.Module, recipe: TimmRecipe, modules: Mapping[str, nn.Module]) -> nn.Module:
    """timm's model of that recipe with other modules of torch's in some places, by their paths."""
    for path, module in modules.items():
        model.set_submodule(path, module)
    changes = tuple(f"model.{path} = torch.nn.{module}" for path, module in modules.items())
    model.__dict__["zoo_recipe"] = replace(recipe, changes=changes)
    return model


def _resnet(
    name: str,
    stride: int,
    kwargs: Mapping[str, Any],
    without: Sequence[str],
    *,
    channels: int = 3,
) -> nn.Module:
    """timm's ResNet with one 3x3 convolution of that `stride` as its stem, and no max-pool.

    `kwargs` are for timm; the stages `without` are left out.
    """
    recipe = TimmRecipe(name, {**kwargs, **_in_chans(channels)})
    model: Any = timm.create_model(name, num_classes=0, **recipe.kwargs)
    width = model.bn1.num_features
    stem = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")  # as timm
    left_out = {path: nn.Identity() for path in ("maxpool", *without)}
    return _changed(model, recipe, {"conv1": stem, **left_out})


# For 32 px, 512 and 2048 wide: 3x3 stride-1 stem, no max-pool (arXiv:2011.10566 appendix D).
resnet18_cifar = partial(_resnet, "resnet18", 1, {}, ())
resnet50_cifar = partial(_resnet, "resnet50", 1, {}, ())


def resnet18_fit(*, image_size: int, channels: int = 3) -> nn.Module:
    """timm's ResNet-18; below 64 px with a 3x3 stride-2 stem and no max-pool."""
    if image_size < 64:
        return _resnet("resnet18", 2, {}, (), channels=channels)
    recipe = TimmRecipe("resnet18", _in_chans(channels))
    return _changed(timm.create_model("resnet18", num_classes=0, **recipe.kwargs), recipe, {})


def resnet_small(*, widths: list[int], depth: int, stride: int, channels: int = 3) -> nn.Module:
    """A small ResNet of basic blocks for images of 24 to 32 px, as wide as its last stage.

    Args:
        widths: output channels of each stage, one to four; each stage but the first halves the map.
        depth: blocks in each stage.
        stride: of the 3x3 stem, `widths[0]` wide; there is no max-pool.
        channels: of the images.
    """
    if not 1 <= len(widths) <= 4 or widths[0] % 2:
        raise InputError(
            f"widths of resnet_small are one to four, the first of them even; not {widths}",
            "For example resnet_small:widths=32/64/128.",
        )
    kwargs = {
        "layers": (depth,) * len(widths),
        "channels": tuple(widths),
        "stem_type": "deep",  # which alone lets timm choose the stem's width: twice this
        "stem_width": widths[0] // 2,
        "avg_down": True,  # else shortcuts see one pixel of four, and on small maps little is left
    }
    without = [f"layer{number}" for number in range(len(widths) + 1, 5)]
    return _resnet("resnet18", stride, kwargs, without, channels=channels)


def densenet_small(*, growth_rate: int, blocks: list[int], channels: int = 3) -> nn.Module:
    """A small DenseNet for 24 to 32 px: timm's densenet121 with a 3x3 stem and fewer layers.

    Args:
        growth_rate: channels that each layer adds.
        blocks: layers of each dense block; between two the map and its channels are halved.
        channels: of the images.
    """
    kwargs: dict[str, Any] = {"growth_rate": growth_rate, "block_config": tuple(blocks)}
    recipe = TimmRecipe("densenet121", kwargs | _in_chans(channels))
    model = timm.create_model("densenet121", num_classes=0, **recipe.kwargs)
    stem = nn.Conv2d(channels, 2 * growth_rate, 3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight)  # as timm
    return _changed(model, recipe, {"features.conv0": stem})


def vgg_small(*, widths: list[int], depth: int, channels: int = 3) -> nn.Module:
    """A small VGG with BN for 24 to 32 px, as wide as its last stage; none of timm's.

    Args:
        widths: output channels of each stage; a max-pool halves the map after each.
        depth: 3x3 convolutions in each stage.
        channels: of the images.
    """
    layers: list[nn.Module] = []
    for before, width in itertools.pairwise([channels, *widths]):
        for given in (before, *[width] * (depth - 1)):
            layers += [nn.Conv2d(given, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    for module in layers:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _create(name: str, drop_path_rate: float, size: dict[str, int]) -> nn.Module:
    options: dict[str, Any] = {"num_classes": 0, **size}
    try:
        return timm.create_model(name, drop_path_rate=drop_path_rate, **options)
    except TypeError as error:
        if "'drop_path_rate'" not in str(error):
            raise
    if drop_path_rate > 0:
        raise InputError(
            f"backbone {name} has no stochastic depth, so no drop_path_rate",
            "Leave drop_path_rate out.",
        )
    return timm.create_model(name, **options)


def _drop_fc_trunk(model: Any) -> tuple[str, ...]:
    """Pool right after the convolutions where timm would run fc layers first; the changes made.

    timm's `pre_logits`, where it is a module of the model itself with weights, works on the map
    before it is pooled: VGG's two fc layers, 4096 wide, 120 M parameters.
    """
    trunk = getattr(model, "pre_logits", None)
    if not isinstance(trunk, nn.Module) or next(trunk.parameters(), None) is None:
        return ()
    model.pre_logits = nn.Identity()
    model.head = ClassifierHead(model.num_features, 0)
    model.head_hidden_size = model.num_features
    return (
        "model.pre_logits = torch.nn.Identity()",
        "model.head = timm.layers.ClassifierHead(model.num_features, 0)",
        "model.head_hidden_size = model.num_features",
    )
