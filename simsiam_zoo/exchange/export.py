"""Export: write a run's backbone for another library, load it there, compare the features.

A format is a component of the kind `format`. It states the Python that loads what it wrote, for the
user; `write_checked` runs that very text. Nothing that a file says gets into it.
"""

from __future__ import annotations

import copy
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from simsiam_zoo.catalog import Resolved, catalog
from simsiam_zoo.errors import DataError, InputError, PluginError
from simsiam_zoo.model.backbones import TimmRecipe, timm_recipe
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.folders import atomic_write, made_folder, sync_folder, unwritable
from simsiam_zoo.training.run import Run
from simsiam_zoo.training.weights import plain_state, write_backbone

TOLERANCE = 1e-4
"""Largest difference that is let pass, as a share of the largest feature (of 1, if that is more).

Weights are copied bit by bit; what may differ is the order in which another library adds up."""

PICKLED = (".pth", ".pt", ".bin")
"""Endings of files that `torch.save` writes; all others are safetensors."""

SAME_KEYS = re.compile(
    r"(?P<resnet>(wide_)?resnet\d+(_2)?|resnext\d+_\d+x\d+d)|(?P<densenet>densenet\d+)"
    r"|(?P<vgg>vgg\d+(_bn)?)"
)
"""Architectures that torchvision and timm give the same keys, if both have them by that name."""


@dataclass(frozen=True)
class ExportSource:
    """What is exported.

    `backbone`, [N, 3, H, W] → features [N, in_dim], is on the CPU, in eval mode and float32.
    `identity` is the run's, "" where it has none; `run` is None where there is only a backbone.
    """

    backbone: nn.Module
    recipe: Recipe
    identity: str = ""
    run: Run | None = None

    def made_by_timm(self) -> TimmRecipe:
        """How timm makes the backbone. Raises InputError where it is none of timm's."""
        if (made := timm_recipe(self.backbone)) is None:
            raise InputError(
                f"the backbone {self.recipe.backbone.name} is none of timm's, and this format"
                " takes only those",
                "Export it with --to safetensors.",
            )
        return made

    def timm_code(self, weights: str) -> str:
        """Python that loads the file `weights` into timm's model, and states the run's images."""
        made = self.made_by_timm()
        kwargs = "".join(f", {key}={value!r}" for key, value in made.kwargs.items())
        if made.changes:
            body = [made.code, f"timm.models.load_checkpoint(model, {weights!r})"]
        else:
            create = (
                f"timm.create_model({made.name!r}, num_classes=0{kwargs}, checkpoint_path=file)"
            )
            body = ["import timm", f"file = {weights!r}", f"model = {create}"]
        stated = ", ".join(f"{key}={value!r}" for key, value in self.timm_images().items())
        body.append(f"model.pretrained_cfg.update({stated})")
        return "\n".join([*body, "model.eval()", "features = model(images)"])

    def timm_images(self) -> dict[str, Any]:
        """The run's images by the keys of timm's `pretrained_cfg`.

        timm's transforms (`timm.data.resolve_model_data_config`) then do what evaluation here does.
        """
        data = self.recipe.data
        return {
            "input_size": (data.channels, data.image_size, data.image_size),
            "test_input_size": None,
            "mean": tuple(data.mean),
            "std": tuple(data.std),
            "crop_pct": self.recipe.evaluation.crop,
            "test_crop_pct": None,
            "crop_mode": "center",
            "interpolation": "bilinear",
        }

    def write_weights(self, path: Path) -> None:
        """Write the weights, and what rebuilds the backbone: safetensors."""
        write_backbone(self.backbone, self.recipe, self.identity, path)

    def images(self, count: int) -> Tensor:
        """Random images [count, C, H, W] of the run's size, the same at each call."""
        size, channels = self.recipe.data.image_size, self.recipe.data.channels
        generator = torch.Generator().manual_seed(count)
        return torch.randn(count, channels, size, size, generator=generator)


class ExportFormat(ABC):
    """The contract of a component of the kind `format`.

    What is written is called `file` where the user gives no name.
    """

    file: str

    @abstractmethod
    def write(self, source: ExportSource, path: Path) -> None:
        """Write the backbone to `path`, a file or a folder that does not exist yet.

        Raises:
            InputError: the format has no place for this backbone.
            PluginError: a package is missing, or it cannot do it.
        """

    @abstractmethod
    def code(self, source: ExportSource, path: Path) -> str:
        """Python that takes `images` [N, 3, H, W] and leaves `features` [N, in_dim].

        It loads what `write` wrote, in whatever place that is now: `path`.
        """


@dataclass(frozen=True)
class Exported:
    """The file or folder that was written, and how it compares.

    `difference`: the largest between features of the run's backbone and of what was written, loaded
    again, on three random images, of which `largest` is the largest |feature|. `code`: Python that
    loads it, and takes `images` [N, 3, H, W] to `features`.
    """

    path: Path
    difference: float
    largest: float
    code: str


def export_backbone(run: Run, to: str, out: Path | str | None = None) -> Exported:
    """Write a run's backbone for another library, and prove that it gives the same features there.

    Args:
        run: an unfinished one gives the backbone of its last checkpoint.
        to: the format's spec: `timm`, `torchvision`, `safetensors`, or one of a plugin.
        out: where; nothing may be there. By default in the run's folder, in `exports/`.

    Raises:
        InputError: there is no such format or architecture, or `out` is taken or not writable.
        PluginError: a package is missing, the format cannot write the backbone, or what was
            written gives other features; then nothing is left behind.
        DataError: the run's weights are damaged or not finite.
    """
    chosen = catalog().resolve("format", to)
    form = create_format(chosen)
    out = Path(out) if out is not None else run.folder / "exports" / form.file
    if os.path.lexists(out):
        raise InputError(f"{out} exists already", "Remove it, or give another --out.")
    backbone = copy.deepcopy(run.backbone).to(memory_format=torch.contiguous_format).float()
    source = ExportSource(backbone, run.recipe, str(run.lock.get("identity", "")), run)
    return write_checked(form, chosen.name, source, out)


def create_format(chosen: Resolved) -> ExportFormat:
    """The format that `chosen` means. Raises PluginError where it is none."""
    form = chosen.create()
    if not isinstance(form, ExportFormat):
        raise PluginError(f"format {chosen.id} cannot be used: it is no ExportFormat")
    return form


def write_checked(form: ExportFormat, name: str, source: ExportSource, out: Path) -> Exported:
    """Write to `out`, load that again and compare; raises the errors of `export_backbone`."""
    with written_whole(out) as there:
        form.write(source, there)
        difference, largest = _compare(source, form.code(source, there), name)
    return Exported(out, difference, largest, form.code(source, out))


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A place to write a file or folder to: at the end it is at `out`, on an error nowhere."""
    try:
        # In a folder of its own, so that whatever is written there goes with it.
        with made_folder(out.parent), TemporaryDirectory(dir=out.parent, prefix=".new-") as folder:
            there = Path(folder) / out.absolute().name
            yield there
            os.replace(there, out)
            sync_folder(out.parent)
    except OSError as error:
        raise unwritable(out, error) from None


def _compare(source: ExportSource, code: str, name: str) -> tuple[float, float]:
    """(largest difference, largest feature) over three random images.

    Three, where graphs were traced with two: the size of a batch must not be in them.
    """
    images = source.images(3)
    names: dict[str, Any] = {"images": images}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        expected = source.backbone(images)
        if not expected.isfinite().all():
            raise DataError("the run's backbone gives features that are not finite")
        try:
            exec(code, names)  # the format's own text
        except Exception as error:
            raise PluginError(
                f"what was written for {name} cannot be loaded there:"
                f" {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            ) from error
    features = torch.as_tensor(names["features"])
    if features.shape != expected.shape:
        raise PluginError(
            f"loaded by {name} the backbone gives {list(features.shape)},"
            f" not {list(expected.shape)}"
        )
    difference = float((features - expected).abs().max())
    largest = float(expected.abs().max())
    if not difference <= TOLERANCE * max(1.0, largest):
        raise PluginError(
            f"loaded by {name} the backbone gives other features: they differ by up to"
            f" {difference:.2g}, where the largest is {largest:.2g}",
            "Nothing was kept. Export with --to safetensors.",
        )
    return difference, largest


class TimmFormat(ExportFormat):
    """Weights that `timm.create_model` or `timm.models.load_checkpoint` reads."""

    file = "timm.safetensors"

    def write(self, source: ExportSource, path: Path) -> None:
        """Raises InputError where the backbone is none of timm's, or timm cannot tell the file."""
        source.made_by_timm()
        if path.suffix not in (".safetensors", *PICKLED):
            raise InputError(
                f"timm knows weights by the file's ending, and {path.name} has no such ending",
                f"Say --out {path.name}.safetensors.",
            )
        _write_state(source, path)

    def code(self, source: ExportSource, path: Path) -> str:
        """It also states the run's images, in place of those that timm's weights were made of."""
        return source.timm_code(str(path))


class TorchvisionFormat(ExportFormat):
    """Weights that torchvision's model of that name takes, without its classifier."""

    file = "torchvision.safetensors"

    def write(self, source: ExportSource, path: Path) -> None:
        """Raises InputError where torchvision has no such architecture, or no such keys."""
        made, names = source.made_by_timm(), torchvision_names()
        if made.name not in names or made.kwargs:
            sized = ", ".join(f"{key}={value}" for key, value in made.kwargs.items())
            raise InputError(
                f"torchvision has no architecture with the keys of timm's {made.name}"
                + f" ({sized})" * bool(sized),
                f"It takes {', '.join(names)}. Or export with --to timm or safetensors.",
            )
        _write_state(source, path)

    def code(self, source: ExportSource, path: Path) -> str:
        """See the base class."""
        made = source.made_by_timm()
        family = SAME_KEYS.fullmatch(made.name)
        assert family is not None  # `write` refuses others
        if family["vgg"]:  # what `timm_backbone` changes of timm's VGG, torchvision has elsewhere
            changes = ["model.avgpool = torch.nn.AdaptiveAvgPool2d(1)"]
        else:
            changes = [*made.changes]
        head = "fc" if family["resnet"] else "classifier"
        if path.suffix in PICKLED:
            imports, reader = [], "torch.load(file, weights_only=True)"
        else:
            imports, reader = ["from safetensors.torch import load_file"], "load_file(file)"
        lines = ["import torch", "import torchvision", *imports, f"file = {str(path)!r}"]
        lines += [f"model = torchvision.models.get_model({made.name!r})", *changes]
        lines += [f"model.{head} = torch.nn.Identity()", f"model.load_state_dict({reader})"]
        return "\n".join([*lines, "model.eval()", "features = model(images)"])


def torchvision_names() -> list[str]:
    """The architectures that can be exported to torchvision, by their names in both libraries."""
    import timm
    import torchvision

    both = {*torchvision.models.list_models()} & {*timm.list_models()}
    return sorted(name for name in both if SAME_KEYS.fullmatch(name))


class SafetensorsFormat(ExportFormat):
    """Weights and what rebuilds the backbone from the file alone."""

    file = "backbone.safetensors"

    def write(self, source: ExportSource, path: Path) -> None:
        """See `training.weights`."""
        source.write_weights(path)

    def code(self, source: ExportSource, path: Path) -> str:
        """See the base class."""
        load = f"model = simsiam_zoo.load_backbone({str(path)!r})"
        return "\n".join(["import simsiam_zoo", load, "features = model(images)"])


def _write_state(source: ExportSource, path: Path) -> None:
    if path.suffix not in PICKLED:
        return source.write_weights(path)
    with atomic_write(path) as file:
        torch.save(plain_state(source.backbone), file)
