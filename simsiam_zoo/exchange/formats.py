"""The formats of other libraries: how each is written, and the Python that reads it again.

Each format gives that Python as a text, for the user; `export.py` runs the very text to check what
was written. It is made here, of names of ours; nothing that a file says gets into it.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.model.backbones import TimmRecipe, timm_recipe
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.folders import atomic_write
from simsiam_zoo.training.export import backbone_metadata, plain_state, write_backbone
from simsiam_zoo.training.run import Run

PICKLED = (".pth", ".pt", ".bin")
"""Endings of files that torch reads itself, with `weights_only`; all others are safetensors."""

BY_CONVENTION = re.compile(
    r"(?P<resnet>(wide_)?resnet\d+(_2)?|resnext\d+_\d+x\d+d)|(?P<densenet>densenet\d+)"
    r"|(?P<vgg>vgg\d+(_bn)?)"
)
"""Architectures that torchvision and timm give the same keys, if both have them by that name."""


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        run: the run.
        backbone: its backbone, on the CPU, in eval mode and float32.
        licence: of the weights, as the Hub spells it; None: unknown.
    """

    run: Run
    backbone: nn.Module
    licence: str | None = None

    @property
    def recipe(self) -> Recipe:
        """The run's recipe."""
        return self.run.recipe

    @property
    def identity(self) -> str:
        """The run's identity."""
        return str(self.run.lock.get("identity", ""))

    def of_timm(self, to: str) -> TimmRecipe:
        """How timm makes the backbone. Raises InputError where it is none of timm's."""
        if (made := timm_recipe(self.backbone)) is None:
            raise InputError(
                f"the backbone {self.recipe.backbone.name} is none of timm's, and --to {to} takes"
                " only those",
                "Export it with --to safetensors, onnx or pt2.",
            )
        return made

    def images(self, count: int) -> Tensor:
        """Random images [count, 3, H, W] of the run's size, the same at each call."""
        size = self.recipe.data.image_size
        generator = torch.Generator().manual_seed(count)
        return torch.randn(count, 3, size, size, generator=generator)


Code = Callable[[Path], str]
"""The file's path → Python that takes `images` and leaves `features`."""


def write_timm(source: Source, path: Path) -> Code:
    """Weights that `timm.create_model` or `timm.models.load_checkpoint` reads."""
    made = source.of_timm("timm")
    _write_state(source, path)
    return timm_code(made)


def timm_code(made: TimmRecipe, file: str = "") -> Code:
    """Python that loads weights into timm's model; `file` is in a folder then."""

    def code(path: Path) -> str:
        weights = str(path / file) if file else str(path)
        kwargs = "".join(f", {key}={value!r}" for key, value in made.kwargs.items())
        if not made.changes:
            create = (
                f"timm.create_model({made.name!r}, num_classes=0{kwargs}, checkpoint_path=file)"
            )
            body = ["import timm", f"file = {weights!r}", f"model = {create}"]
        else:
            body = [made.code, f"timm.models.load_checkpoint(model, {weights!r})"]
        return "\n".join([*body, "model.eval()", "features = model(images)"])

    return code


def write_torchvision(source: Source, path: Path) -> Code:
    """Weights that torchvision's model of that name takes, without its classifier.

    Raises:
        InputError: torchvision has no such architecture, or no such keys.
    """
    made = source.of_timm("torchvision")
    changes = _torchvision_changes(made)
    _write_state(source, path)

    def code(path: Path) -> str:
        pickled = path.suffix in PICKLED
        reader = "torch.load(file, weights_only=True)" if pickled else "load_file(file)"
        imports = ["import torch", "import torchvision"]
        imports += [] if pickled else ["from safetensors.torch import load_file"]
        return "\n".join(
            [
                *imports,
                f"file = {str(path)!r}",
                f"model = torchvision.models.get_model({made.name!r})",
                *changes,
                f"model.load_state_dict({reader})",
                "model.eval()",
                "features = model(images)",
            ]
        )

    return code


def torchvision_names() -> list[str]:
    """The architectures that can be exported to torchvision, by their names in both libraries."""
    import timm
    import torchvision

    both = {*torchvision.models.list_models()} & {*timm.list_models()}
    return sorted(name for name in both if BY_CONVENTION.fullmatch(name))


def _torchvision_changes(made: TimmRecipe) -> list[str]:
    names = torchvision_names()
    if made.name not in names:
        raise InputError(
            f"torchvision has no architecture with the keys of timm's {made.name}",
            f"It takes {', '.join(names)}. Or export with --to timm, safetensors, onnx or pt2.",
        )
    family = BY_CONVENTION.fullmatch(made.name)
    assert family is not None  # else it were not among the names
    if family["vgg"]:  # what `timm_recipe` changes of timm's VGG, torchvision has elsewhere
        pool, head = "torch.nn.AdaptiveAvgPool2d(1)", "torch.nn.Identity()"
        return [f"model.avgpool = {pool}", f"model.classifier = {head}"]
    head = "fc" if family["resnet"] else "classifier"
    return [*made.changes, f"model.{head} = torch.nn.Identity()"]


def write_safetensors(source: Source, path: Path) -> Code:
    """Weights and what rebuilds the backbone from the file alone."""
    write_backbone(source.backbone, source.recipe, source.identity, path)
    return lambda path: "\n".join(
        [
            "import simsiam_zoo",
            f"model = simsiam_zoo.load_backbone({str(path)!r})",
            "features = model(images)",
        ]
    )


def write_onnx(source: Source, path: Path) -> Code:
    """An ONNX graph, for batches of any size.

    Raises:
        PluginError: the packages for ONNX are not installed, or torch cannot export the backbone.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise PluginError(
                f"--to onnx needs {package}, which is not installed",
                "python -m pip install 'simsiam-zoo[onnx]'",
            )
    with _traced(source, "torch.onnx"):
        program = torch.onnx.export(
            source.backbone,
            (source.images(2),),
            dynamo=True,
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            verbose=False,
        )
        assert program is not None  # it is None for the older exporter only
        program.save(str(path))
    return lambda path: "\n".join(
        [
            "import onnxruntime",
            f"session = onnxruntime.InferenceSession({str(path)!r})",
            '(features,) = session.run(None, {"images": images.numpy()})',
        ]
    )


def write_pt2(source: Source, path: Path) -> Code:
    """A program of `torch.export`, for batches of any size.

    Raises:
        PluginError: torch cannot export the backbone.
    """
    with _traced(source, "torch.export"):
        program = torch.export.export(
            source.backbone,
            (source.images(2),),
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        )
        torch.export.save(program, path)
    return lambda path: "\n".join(
        [
            "import torch",
            f"model = torch.export.load({str(path)!r}).module()",
            "features = model(images)",
        ]
    )


def _write_state(source: Source, path: Path) -> None:
    state = plain_state(source.backbone)
    with atomic_write(path) as file:
        if path.suffix in PICKLED:
            torch.save(state, file)
        else:
            metadata = backbone_metadata(source.backbone, source.recipe, source.identity)
            file.write(save(state, metadata))


@contextmanager
def _traced(source: Source, by: str) -> Iterator[None]:
    """Without the exporters' remarks; what they cannot do is a refusal.

    Raises:
        PluginError: it failed, but for the disk.
    """
    logger = logging.getLogger("torch")
    level = logger.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logger.setLevel(logging.ERROR)
            yield
    except OSError:
        raise
    except Exception as error:  # a tracer meets anything in a stranger's forward pass
        first_line = str(error).strip().partition("\n")[0]
        raise PluginError(
            f"{by} cannot export the backbone {source.recipe.backbone.name}:"
            f" {type(error).__name__} {first_line}"
        ) from error
    finally:
        logger.setLevel(level)
