"""The backbone's computation, traced by torch and written as a file."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from simsiam_zoo.plugin import ExportFormat, ExportSource, PluginError

_ANY_BATCH = {0: torch.export.Dim.DYNAMIC}


class OnnxFormat(ExportFormat):
    """An ONNX graph, for batches of any size."""

    file = "backbone.onnx"

    def write(self, source: ExportSource, path: Path) -> None:
        """Trace two images, since a batch of one would be taken for a constant.

        Raises:
            PluginError: the packages for ONNX are missing, or torch cannot export the backbone.
        """
        for package in ("onnx", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise PluginError(
                    f"the format onnx needs {package}, which is not installed",
                    "python -m pip install 'simsiam-zoo-export[onnx]'",
                )
        with _refusals("torch.onnx", source):
            program = torch.onnx.export(
                source.backbone,
                (source.images(2),),
                dynamo=True,
                input_names=["images"],
                output_names=["features"],
                dynamic_shapes=(_ANY_BATCH,),
                verbose=False,
            )
            assert program is not None  # it is None for the older exporter only
            program.save(str(path))

    def code(self, source: ExportSource, path: Path) -> str:
        """Python that takes `images` [N, 3, H, W] and leaves `features` [N, in_dim]."""
        return "\n".join(
            [
                "import onnxruntime",
                f"session = onnxruntime.InferenceSession({str(path)!r})",
                '(features,) = session.run(None, {"images": images.numpy()})',
            ]
        )


class Pt2Format(ExportFormat):
    """A program of `torch.export`, for batches of any size."""

    file = "backbone.pt2"

    def write(self, source: ExportSource, path: Path) -> None:
        """Trace two images.

        Raises:
            PluginError: torch cannot export the backbone.
        """
        with _refusals("torch.export", source):
            program = torch.export.export(
                source.backbone, (source.images(2),), dynamic_shapes=(_ANY_BATCH,)
            )
            torch.export.save(program, path)

    def code(self, source: ExportSource, path: Path) -> str:
        """Python that takes `images` [N, 3, H, W] and leaves `features` [N, in_dim]."""
        return "\n".join(
            [
                "import torch",
                f"model = torch.export.load({str(path)!r}).module()",
                "features = model(images)",
            ]
        )


@contextmanager
def _refusals(exporter: str, source: ExportSource) -> Iterator[None]:
    """Hide the exporter's remarks; report what it cannot do.

    Raises:
        PluginError: it failed, unless the disk did.
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
    except Exception as error:  # a tracer raises whatever it meets in a forward pass
        first_line = str(error).strip().partition("\n")[0]
        raise PluginError(
            f"{exporter} cannot export the backbone {source.recipe.backbone.name}:"
            f" {type(error).__name__} {first_line}",
            "Export its weights: --to safetensors.",
        ) from error
    finally:
        logger.setLevel(level)
