"""Five resolved components to one model: created, fitted together, tried on two images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from simsiam_zoo.catalog import PARTS, Resolved
from simsiam_zoo.errors import PluginError, ZooError, describe_error
from simsiam_zoo.model.siamese import GradientPolicy, Loss, Part, Siamese
from simsiam_zoo.runtime import distributed

_BASES: dict[str, type[Part]] = {"gradient": GradientPolicy, "loss": Loss}
"""What the parts of a kind are subclasses of; those of the other kinds, of `Part`, if at all."""

_COMMON_SIZES = (32, 48, 64, 96, 128, 160, 224, 256, 320)


def build(
    parts: Mapping[str, Resolved],
    image_size: int,
    dataset_size: int | None = None,
    steps_per_epoch: int | None = None,
    steps: int | None = None,
    fill: Callable[[Siamese], object] | None = None,
    channels: int = 3,
    view_sizes: Sequence[int] = (),
) -> Siamese:
    """Create the five parts, fit them together and let each set itself up; in training mode.

    The widths are found by a dry run on two images, in eval mode and without a draw from torch's
    generator, so that weights depend on nothing but the seed. Works on the meta device too.

    Args:
        parts: which component each of `PARTS` is.
        image_size: of the images in pixels.
        dataset_size, steps_per_epoch, steps: for the policies that ask; None where unknown.
        fill: loads weights into the network, before the parts set themselves up for them.
        channels: of the images.
        view_sizes: of the views in pixels, where they have other sizes too.

    InputError: a part does not take a parameter's value. PluginError: one cannot be created, or
    breaks the contract.
    """
    host = {"image_size": image_size, "channels": channels, "view_sizes": view_sizes}
    backbone = _create(parts["backbone"], **host)
    y = _try_images(parts["backbone"], backbone, image_size, channels)
    if y.ndim != 2 or len(y) != 2:
        given = [2, channels, image_size, image_size]
        raise _broken(parts["backbone"], f"gave {_shape(y)} for {given}, not [2, features]")
    in_dim = y.shape[1]
    for size in sorted({*view_sizes} - {image_size}):
        _try_images(parts["backbone"], backbone, size, channels, (2, in_dim))

    projector = _create(parts["projector"], in_dim=in_dim)
    dim = getattr(projector, "out_dim", None)
    if type(dim) is not int or dim < 1:
        stated = f"has out_dim {dim!r}; a projector states its width as an int"
        raise _broken(parts["projector"], stated)
    _dry_run(parts["projector"], projector, y, expected=(2, dim))
    sizes = {"dataset_size": dataset_size, "steps_per_epoch": steps_per_epoch, "steps": steps}
    behind: dict[str, Any] = {
        kind: _part_behind(parts[kind], in_dim, dim, sizes)
        for kind in ("predictor", "gradient", "loss")
    }
    siamese = Siamese(backbone, projector, **behind, in_dim=in_dim, dim=dim).train()
    if fill is not None:
        fill(siamese)
    for kind in PARTS:
        _set_up(parts[kind], siamese)
    return siamese


def _try_images(
    part: Resolved,
    backbone: nn.Module,
    size: int,
    channels: int,
    expected: tuple[int, ...] | None = None,
) -> Tensor:
    """What a backbone gives of two images [channels, size, size], checked as by `_dry_run`."""
    # neither constant nor alike, in the range of normalised images
    x = torch.linspace(-2, 2, 2 * channels * size**2).reshape(2, channels, size, size)
    what = f"{size} px" if channels == 3 else f"{channels} channels of {size} px"
    hint = f"It may not take {what}: another size or another backbone is the way out."
    try:
        return _dry_run(part, backbone, x, expected=expected, hint=hint)
    except PluginError as error:
        if expected is None and (larger := _size_that_it_takes(backbone, size, channels)):
            hint = f"It takes {larger} px: --set data.image_size={larger}."
            raise PluginError(error.what, hint) from error
        raise


def _size_that_it_takes(backbone: nn.Module, size: int, channels: int) -> int | None:
    """The smallest common size above `size` of which a backbone makes features."""
    for larger in (each for each in _COMMON_SIZES if each > size):
        with suppress(Exception), torch.no_grad(), torch.random.fork_rng(devices=[]):
            if backbone(torch.zeros(2, channels, larger, larger)).ndim == 2:
                return larger
    return None


def renew(
    siamese: Siamese,
    parts: Mapping[str, Resolved],
    fit: Callable[[nn.Module], nn.Module],
    **sizes: int | None,
) -> None:
    """Put new parts in the place of those of a network: created, tried and set up as by `build`.

    Args:
        parts: which component each is; any but the backbone. The width of z stays as it is.
        fit: makes a new part like the network's others: on their device, say.
        sizes: as `build` is told them.
    """
    for kind, part in parts.items():
        module = _part_behind(part, siamese.in_dim, siamese.dim, sizes)
        setattr(siamese, kind, fit(module.train()))
    for kind, part in parts.items():
        _set_up(part, siamese)
        setattr(siamese, kind, fit(siamese.get_submodule(kind)))  # it may have made modules


def _part_behind(
    part: Resolved, in_dim: int, dim: int, sizes: Mapping[str, int | None]
) -> nn.Module:
    """A part behind the backbone, tried on two samples that are neither constant nor alike."""
    # not a network's own z: an untrained one's may be all alike, which a loss need not bear
    width = in_dim if part.kind == "projector" else dim
    ramp = torch.linspace(-1, 1, 2 * width).reshape(2, width)
    if part.kind == "gradient":
        gradient = _create(part, dim=dim, **sizes)
        if not isinstance(gradient, GradientPolicy):
            raise _broken(part, "is no subclass of simsiam_zoo.plugin.GradientPolicy")
        return gradient
    if part.kind == "loss":
        loss = _create(part, dim=dim)
        _dry_run(part, loss, ramp, ramp.flip(0, 1), expected=())
        return loss
    head = _create(part, **({"in_dim": in_dim} if part.kind == "projector" else {"dim": dim}))
    _dry_run(part, head, ramp, expected=(2, dim))
    return head


def _set_up(part: Resolved, siamese: Siamese) -> None:
    if isinstance(module := siamese.get_submodule(part.kind), Part):
        with _blaming(part, "failed in setup"):
            module.setup(siamese)


def _create(part: Resolved, **host: object) -> nn.Module:
    module = part.create(**host)
    if not isinstance(module, nn.Module):
        raise _broken(part, f"made a {type(module).__name__}, not a torch.nn.Module")
    base = _BASES.get(part.kind, Part)
    if not isinstance(module, base):
        unheard = sorted(n for n in _offers(base) - _offers(nn.Module) if hasattr(module, n))
        if unheard:
            what = f"has {unheard[0]}, which counts in subclasses of"
            raise _broken(part, f"{what} simsiam_zoo.plugin.{base.__name__} alone")
    return module


def _offers(base: type[nn.Module]) -> set[str]:
    return {name for name in dir(base) if not name.startswith("_")}


def _dry_run(
    part: Resolved,
    module: nn.Module,
    *inputs: Tensor,
    expected: tuple[int, ...] | None = None,
    hint: str | None = None,
) -> Tensor:
    """The output for two samples, checked; in eval mode, so that no running statistic moves."""
    given = " and ".join(_shape(x) for x in inputs)
    module.eval()
    with (
        _blaming(part, f"failed on {given}", hint),
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        distributed.apart(),  # one rank builds the untrained network while the others wait
    ):
        output = module(*inputs)
    if not isinstance(output, Tensor):
        raise _broken(part, f"gave a {type(output).__name__} for {given}, not a tensor")
    if expected is not None and output.shape != expected:
        raise _broken(part, f"gave {_shape(output)} for {given}, not {list(expected)}")
    if not output.is_meta and not output.isfinite().all():
        raise _broken(part, f"gave values that are not finite for {given}")
    return output


@contextmanager
def _blaming(part: Resolved, what: str, hint: str | None = None) -> Iterator[None]:
    """Whatever a part's code raises inside, as an error that names the part."""
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        cause = describe_error(error, part.entry.component.target)
        raise _broken(part, f"{what} ({cause})", hint) from error


def _broken(part: Resolved, what: str, hint: str | None = None) -> PluginError:
    return PluginError(f"{part.kind} {part.id} cannot be used: it {what}", hint)


def _shape(x: Tensor) -> str:
    return str(list(x.shape))
