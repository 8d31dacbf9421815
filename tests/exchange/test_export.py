"""Export: each backbone is read by the other library in its own words, and compared here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from click.testing import CliRunner
from made_weights import images
from safetensors.torch import load_file
from torch import nn

import simsiam_zoo as zoo
from simsiam_zoo.cli.export import export as command
from simsiam_zoo.errors import DataError, InputError, PluginError
from simsiam_zoo.exchange.export import ExportSource, TimmFormat, export_backbone, torchvision_names
from simsiam_zoo.training.run import Run

BACKBONES = ("resnet18", "densenet121", "vgg11_bn", "test_vit")
RunOf = Callable[[str], Run]


def features(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(images(32))


def near(theirs: torch.Tensor, run: Run) -> bool:
    return torch.allclose(theirs, features(run.backbone), atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_timm_reads_its_own_and_gives_the_same_features(run_of: RunOf, name, tmp_path) -> None:
    run = run_of(name)
    done = export_backbone(run, "timm", tmp_path / "out.safetensors")
    assert done.difference <= 1e-5 < done.largest
    size = {"img_size": 32} if name == "test_vit" else {}
    if name != "vgg11_bn":
        model = timm.create_model(name, num_classes=0, checkpoint_path=done.path, **size)
        assert near(features(model.eval()), run)
        return
    with torch.device("meta"):  # its fc layers have no weights here
        model = timm.create_model(name, num_classes=0)
    lacking = model.load_state_dict(load_file(done.path), strict=False, assign=True)
    assert {key.partition(".")[0] for key in lacking.missing_keys} == {"pre_logits"}
    assert not lacking.unexpected_keys
    with torch.no_grad():
        pooled = model.eval().forward_features(images(32)).mean((2, 3))
    assert near(pooled, run)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg11_bn"])
def test_torchvision_takes_the_weights_and_gives_the_same_features(
    run_of: RunOf, name, tmp_path
) -> None:
    run = run_of(name)
    done = export_backbone(run, "torchvision", tmp_path / "out.pth")
    model = torchvision.models.get_model(name)
    state = torch.load(done.path, weights_only=True)
    lacking = model.load_state_dict(state, strict=False)
    assert {key.partition(".")[0] for key in lacking.missing_keys} <= {"fc", "classifier"}
    assert not lacking.unexpected_keys
    nodes = {"resnet18": "flatten", "densenet121": "flatten", "vgg11_bn": "features"}
    extractor = torchvision.models.feature_extraction.create_feature_extractor(
        model.eval(), [nodes[name]]
    )
    found = features(extractor)[nodes[name]]
    assert near(found.mean((2, 3)) if found.ndim == 4 else found, run)


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn"])
def test_timms_model_states_the_runs_images_and_not_those_of_timms_weights(
    run_of: RunOf, name, tmp_path
) -> None:
    run = run_of(name)
    assert run.recipe.data.mean != timm.get_pretrained_cfg(name).mean
    names: dict[str, Any] = {"images": images(32)}
    with torch.no_grad():
        exec(export_backbone(run, "timm", tmp_path / "out.safetensors").code, names)
    for use_test_size in (False, True):
        data = timm.data.resolve_model_data_config(names["model"], use_test_size=use_test_size)
        assert (*data["input_size"],) == (3, 32, 32)
        assert (*data["mean"],) == run.recipe.data.mean
        assert (*data["std"],) == run.recipe.data.std
        assert data["crop_pct"] == run.recipe.evaluation.crop


def test_weights_that_modules_share_are_written_for_each_of_their_keys(
    run_of: RunOf, tmp_path
) -> None:
    name = "coat_lite_tiny"  # its serial blocks share their position encodings
    shared = timm.create_model(name, num_classes=0, img_size=32).state_dict()
    assert len({value.data_ptr() for value in shared.values()}) < len(shared)
    run = run_of(name)
    done = export_backbone(run, "timm", tmp_path / "out.safetensors")
    assert done.difference <= 1e-5
    assert load_file(done.path).keys() == shared.keys()
    assert near(features(zoo.load_backbone(run.folder / "backbone.safetensors")), run)


def test_torchvision_takes_the_resnets_for_32_px_too(run_of: RunOf, tmp_path) -> None:
    run = run_of("resnet18_cifar")
    done = export_backbone(run, "torchvision", tmp_path / "out.safetensors")
    assert done.difference <= 1e-5
    assert "model.maxpool = torch.nn.Identity()" in done.code


def test_what_torchvision_has_none_of_is_refused_by_name(run_of: RunOf, tmp_path) -> None:
    with pytest.raises(InputError, match=r"torchvision has no architecture.*test_vit") as refused:
        export_backbone(run_of("test_vit"), "torchvision", tmp_path / "out.pth")
    assert "resnet18" in str(refused.value)
    assert [*tmp_path.iterdir()] == []
    with pytest.raises(InputError):
        export_backbone(run_of("test_vit"), "torchvision")
    for small in ("resnet_small", "densenet_small", "vgg_small"):  # not torchvision's networks
        with pytest.raises(InputError, match=r"torchvision|none of timm"):
            export_backbone(run_of(small), "torchvision", tmp_path / "out.pth")
    assert [*tmp_path.iterdir()] == []
    assert not (run_of("test_vit").folder / "exports").exists()


def test_the_architectures_that_go_to_torchvision_have_the_same_keys_in_both() -> None:
    names = torchvision_names()
    assert {"resnet50", "densenet201", "vgg16_bn", "wide_resnet50_2"} <= {*names}
    for name in names:
        with torch.device("meta"):
            theirs = torchvision.models.get_model(name).state_dict()
            ours = timm.create_model(name, num_classes=0).state_dict()
        ours = {key: v for key, v in ours.items() if not key.startswith("pre_logits.")}
        assert ours.keys() <= theirs.keys(), name
        assert all(theirs[key].shape == ours[key].shape for key in ours), name


@pytest.mark.parametrize("name", [*BACKBONES, "resnet18_cifar", "resnet_small"])
def test_a_safetensors_file_alone_rebuilds_the_backbone(run_of: RunOf, name, tmp_path) -> None:
    run = run_of(name)
    file = export_backbone(run, "safetensors", tmp_path / "out.safetensors").path
    torch.manual_seed(5)
    before = torch.get_rng_state()
    loaded = zoo.load_backbone(file)
    assert torch.equal(torch.get_rng_state(), before)
    assert near(features(loaded), run)
    assert not loaded.training
    assert loaded.zoo_data["image_size"] == 32
    data = timm.data.resolve_model_data_config(loaded)
    assert (data["input_size"], data["mean"]) == ((3, 32, 32), run.recipe.data.mean)


def test_other_features_are_refused_and_nothing_is_left(
    run_of: RunOf, tmp_path, monkeypatch
) -> None:
    write = TimmFormat.write

    def damaged(self: TimmFormat, source: ExportSource, path: Path) -> None:
        with torch.no_grad():
            next(source.backbone.parameters()).mul_(1.01)
        write(self, source, path)
        with torch.no_grad():
            next(source.backbone.parameters()).div_(1.01)

    monkeypatch.setattr(TimmFormat, "write", damaged)
    with pytest.raises(PluginError, match="gives other features: they differ by up to"):
        export_backbone(run_of("resnet18"), "timm", tmp_path / "out.safetensors")
    assert [*tmp_path.iterdir()] == []


def test_an_export_leaves_the_runs_backbone_as_it_was(run_of: RunOf, tmp_path) -> None:
    run = run_of("resnet18")
    before = {key: value.clone() for key, value in run.backbone.state_dict().items()}
    export_backbone(run, "torchvision", tmp_path / "out.pth")
    after = run.backbone.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert run.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_nothing_is_overwritten_and_a_wrong_format_is_told(run_of: RunOf, tmp_path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        export_backbone(run_of("resnet18"), "timm", tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"
    with pytest.raises(InputError, match="Did you mean torchvision"):
        export_backbone(run_of("resnet18"), "torchvisio", tmp_path / "out")
    with pytest.raises(InputError, match="license"):
        export_backbone(run_of("resnet18"), "timm:license=mit", tmp_path / "out")
    with pytest.raises(InputError, match="the file's ending") as caught:
        export_backbone(run_of("resnet18"), "timm", tmp_path / "out")
    assert caught.value.hint == "Say --out out.safetensors."
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_backbone_of_no_library_goes_only_where_it_needs_none(run_of: RunOf, tmp_path) -> None:
    plain = run_of("resnet18")
    run = Run(plain.folder, plain.recipe)
    run.__dict__["backbone"] = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    for to in ("timm", "torchvision"):
        with pytest.raises(InputError, match="none of timm's"):
            export_backbone(run, to, tmp_path / "out")
    assert [*tmp_path.iterdir()] == []


def test_the_command_prints_the_difference_and_python_that_works(run_of: RunOf, tmp_path) -> None:
    run = run_of("resnet18")
    out = str(tmp_path / "out.safetensors")
    done = CliRunner().invoke(command, [str(run.folder), "--to", "timm", "--out", out, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    names: dict[str, Any] = {"images": images(32)}
    with torch.no_grad():
        exec(report["python"], names)
    assert near(names["features"], run)
    assert report["max_abs_difference"] <= 1e-5
    shown = CliRunner().invoke(command, [str(run.folder), "--to", "safetensors"])
    assert "loaded again, its features differ from the run's by" in shown.output
    assert (run.folder / "exports" / "backbone.safetensors").is_file()


def test_a_file_that_rebuilds_nothing_is_told_from_a_damaged_one(run_of: RunOf, tmp_path) -> None:
    file: Path = export_backbone(run_of("resnet18"), "safetensors", tmp_path / "a.safetensors").path
    with pytest.raises(InputError, match="there is no file"):
        zoo.load_backbone(tmp_path / "none.safetensors")
    plain = run_of("resnet18").folder.parent / "weights.safetensors"
    with pytest.raises(InputError, match="does not say which backbone"):
        zoo.load_backbone(plain)
    (tmp_path / "torn.safetensors").write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        zoo.load_backbone(tmp_path / "torn.safetensors")


def test_the_python_that_the_guide_shows_loads_a_runs_backbone(
    run_of: RunOf, tmp_path, monkeypatch
) -> None:
    run = run_of("resnet18")
    page = (Path(__file__).parents[2] / "docs" / "exchange.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.chdir(run.folder)
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    assert near(features(names["backbone"]), run)
    assert near(features(names["plain"]), run)
