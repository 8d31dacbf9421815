"""The Hub's folder loads in timm by its own config, and its card claims what was measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

import simsiam_zoo as zoo
from simsiam_zoo.exchange.export import ExportSource, export_backbone
from simsiam_zoo.exchange.importing import import_checkpoint
from simsiam_zoo.plugin import InputError
from simsiam_zoo_export.hub import HubFormat

Run, RunOf = zoo.Run, Callable[[str], zoo.Run]
SETTINGS: dict[str, object] = {
    "data.image_size": 32,
    "data.mean": [0.1, 0.2, 0.3],
    "training.threads": 1,
    "projector": "mlp:layers=1,out_dim=8",
    "predictor": "mlp:hidden_dim=4",
}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> RunOf:
    """A run with such a backbone, of random weights; each is made once."""
    made: dict[str, Run] = {}

    def make(name: str) -> Run:
        if name not in made:
            folder: Path = tmp_path_factory.mktemp("runs")
            recipe = zoo.Recipe.make("imagenet", None, {"backbone": name, **SETTINGS})
            state = zoo.build(recipe).backbone.state_dict()
            file = folder / "weights.safetensors"
            save_file({key: value.contiguous() for key, value in state.items()}, file)
            made[name] = import_checkpoint(file, folder / "run", backbone=name, settings=SETTINGS)
        return made[name]

    return make


def images() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(7))


def near(found: Tensor, run: Run) -> bool:
    with torch.no_grad():
        return torch.allclose(found, run.backbone(images()), atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "test_vit"])
def test_timm_loads_the_hub_folder_by_its_own_config(run_of: RunOf, name, tmp_path) -> None:
    run = run_of(name)
    folder = export_backbone(run, "hub:license=cc-by-4.0", tmp_path / "hub").path
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert near(model(images()).detach(), run)
    data = timm.data.resolve_model_data_config(model)
    assert [*data["input_size"]] == [3, 32, 32]
    assert (*data["mean"],) == run.recipe.data.mean
    assert data["crop_pct"] == run.recipe.evaluation.crop


def test_a_changed_module_goes_to_the_hub_with_the_python_that_makes_it(
    run_of: RunOf, tmp_path, monkeypatch
) -> None:
    run = run_of("resnet18_cifar")
    folder = export_backbone(run, "hub", tmp_path / "hub").path
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "README.md"}
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"images": images()}
    with torch.no_grad():
        exec(code, names)
    assert near(names["features"], run)


def test_a_card_has_the_recipe_the_figures_with_their_protocols_and_the_licence(
    run_of: RunOf, tmp_path
) -> None:
    plain = run_of("resnet18")
    run = Run(plain.folder, plain.recipe)
    figure = {"protocol": "knn (k=20, t=0.1)", "protocol_version": 1, "test_images": 1000}
    run.__dict__["result"] = {
        "verdict": "learned",
        "reason": "kNN gained",
        "figures": [
            {"network": "trained network", "top1": 0.912, **figure},
            {"network": "raw pixels", "top1": 0.5, **figure},
        ],
    }
    text = (
        export_backbone(run, "hub:license=cc-by-4.0", tmp_path / "hub").path / "README.md"
    ).read_text()
    _, front, body = text.split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["license"] == "cc-by-4.0"
    assert card["library_name"] == "timm"
    assert "| trained network | knn (k=20, t=0.1), version 1 | 1,000 | 91.2 % |" in body
    assert "| raw pixels | knn (k=20, t=0.1), version 1 | 1,000 | 50.0 % |" in body
    assert "Verdict: learned (kNN gained)" in body
    assert run.recipe.to_toml().strip() in body


def test_a_card_of_a_run_that_was_not_evaluated_claims_nothing(run_of: RunOf, tmp_path) -> None:
    text = (
        export_backbone(run_of("resnet18"), "hub", tmp_path / "hub").path / "README.md"
    ).read_text()
    assert "license:" not in text
    assert "Licence: none was stated" in text
    assert "None: the run was not evaluated." in text
    assert "Imported from `weights.safetensors`" in text


def test_what_is_none_of_timms_or_of_no_run_is_refused(run_of: RunOf, tmp_path: Path) -> None:
    run = run_of("resnet18")
    other = ExportSource(torch.nn.Flatten(), run.recipe, run=run)
    for source in (other, ExportSource(run.backbone, run.recipe)):
        with pytest.raises(InputError, match=r"none of timm's|there is none"):
            HubFormat(license=None).write(source, tmp_path / "hub")
    assert [*tmp_path.iterdir()] == []
