"""A traced file gives the features of the backbone, for batches that it was not traced with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import simsiam_zoo as zoo
from simsiam_zoo.catalog import catalog
from simsiam_zoo.exchange.export import Exported, create_format, write_checked
from simsiam_zoo.plugin import ExportSource, InputError, PluginError
from simsiam_zoo_export.traced import OnnxFormat

SMALL = ["resnet18", "test_vit"]


def source(name: str) -> ExportSource:
    recipe = zoo.Recipe.make("digits", None, {"backbone": name, "data.image_size": 32})
    backbone = zoo.build(recipe).backbone.to(memory_format=torch.contiguous_format).eval()
    return ExportSource(backbone, recipe)


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(7))


def written(to: str, of: ExportSource, folder: Path) -> Exported:
    form = create_format(catalog().resolve("format", to))
    return write_checked(form, to, of, folder / form.file)


@pytest.mark.parametrize("name", SMALL)
def test_a_pt2_program_gives_the_same_features_for_any_batch(name: str, tmp_path: Path) -> None:
    of = source(name)
    done = written("pt2", of, tmp_path)
    assert done.difference <= 1e-5 < done.largest
    program = torch.export.load(done.path).module()
    for count in (1, 5):
        with torch.no_grad():
            assert torch.allclose(program(images(count)), of.backbone(images(count)), atol=1e-5)


@pytest.mark.parametrize("name", SMALL)  # DenseNet's graph takes a minute
def test_onnxruntime_gives_the_same_features_for_any_batch(name: str, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason="the extra onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    of = source(name)
    file = written("onnx", of, tmp_path).path
    assert [*tmp_path.iterdir()] == [file]
    session = runtime.InferenceSession(file)
    for count in (1, 5):
        (found,) = session.run(["features"], {"images": images(count).numpy()})
        with torch.no_grad():
            expected = of.backbone(images(count))
        assert torch.allclose(torch.from_numpy(found), expected, atol=1e-4)


def test_a_network_of_no_library_is_exported_too(tmp_path: Path) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    assert written("pt2", ExportSource(plain, source("test_vit").recipe), tmp_path).largest > 0


class Untraceable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if float(x.sum()) > 0 else x.amax((2, 3))


def test_what_cannot_be_traced_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    of = ExportSource(Untraceable(), source("test_vit").recipe)
    with pytest.raises(PluginError, match=r"torch\.export cannot export the backbone") as refused:
        written("pt2", of, tmp_path / "new")
    assert refused.value.hint == "Export its weights: --to safetensors."
    assert [*tmp_path.iterdir()] == []


def test_a_missing_package_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = source("test_vit")
    there = {"onnx": object(), "onnxruntime": object()}
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: there.get(name))
    with pytest.raises(PluginError, match="needs onnxscript, which is not installed") as refused:
        OnnxFormat().write(of, tmp_path / "file")
    assert "simsiam-zoo-export[onnx]" in str(refused.value.hint)


def test_without_the_package_the_format_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMSIAM_ZOO_PLUGINS", "")
    with pytest.raises(InputError, match="unknown format"):
        catalog().resolve("format", "onnx")
