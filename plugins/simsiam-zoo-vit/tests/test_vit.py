"""The ViT against MoCo v3's formulas, plain timm, and in a run of a few steps."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import simsiam_zoo as zoo
from simsiam_zoo.catalog import catalog
from simsiam_zoo.plugin import InputError, create_component
from simsiam_zoo.studies.plan import plan_study
from simsiam_zoo.studies.study import read_study

SIZES = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def backbone(image_size: int = 32, **params: object) -> nn.Module:
    torch.manual_seed(0)
    return create_component("backbone", "vit", image_size=image_size, **SIZES, **params)


def positions(side: int, width: int) -> Tensor:
    """One row a patch, rows of the image one after another: sin and cos of x, then of y."""
    rows = []
    for y in range(side):
        for x in range(side):
            waves = [10000 ** (-i / (width // 4)) for i in range(width // 4)]
            of = [[f(at * w) for w in waves] for at in (x, y) for f in (math.sin, math.cos)]
            rows.append([value for part in of for value in part])
    return torch.tensor(rows)


def test_positions_are_the_papers_but_for_the_order_of_channels() -> None:
    """A dot product of two positions, all that attention can see of them, knows no order."""
    model = backbone()
    found = model.pos_embed[0]
    assert not found[0].any()  # of the class token
    expected = positions(4, 24)
    torch.testing.assert_close(found[1:].sort(dim=1).values, expected.sort(dim=1).values)
    torch.testing.assert_close(found[1:] @ found[1:].T, expected @ expected.T)


def test_weights_start_as_mocos() -> None:
    model = backbone(image_size=64)
    weights = dict(model.named_parameters())
    for name, inputs, outputs in (
        ("patch_embed.proj", 3 * 8 * 8, 24),
        ("blocks.0.attn.qkv", 24, 24),  # three matrices of their own
        ("blocks.0.mlp.fc1", 24, 96),
    ):
        bound = math.sqrt(6 / (inputs + outputs))
        largest = weights[f"{name}.weight"].abs().max().item()
        assert 0.98 * bound < largest <= bound, name
        assert not weights[f"{name}.bias"].any(), name


@pytest.mark.parametrize("frozen", [True, False])
def test_a_step_changes_all_but_what_is_fixed(frozen: bool) -> None:
    model = backbone(freeze_patch_embed=frozen)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    model(torch.randn(5, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    kept = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert kept == {"pos_embed", *(f"patch_embed.proj.{n}" for n in ("weight", "bias") if frozen)}


def test_a_run_descends_and_plain_timm_makes_its_backbone_again(
    tiny: Callable[..., zoo.Recipe], tmp_path: Path
) -> None:
    run = zoo.train(tiny(), tmp_path / "run", quiet=True)
    losses = [row["loss"] for row in run.metrics if "loss" in row]
    assert losses[-1] < losses[0]
    code = run.model.backbone.zoo_recipe.code
    scope: dict[str, object] = {}
    exec(code, scope)
    model = scope["model"]
    assert isinstance(model, nn.Module)
    timm.models.load_checkpoint(model, str(tmp_path / "run" / "backbone.safetensors"))
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), run.model.backbone.eval()(x))


def test_features_are_the_class_token_or_the_mean_of_the_patches() -> None:
    x = torch.randn(3, 3, 32, 32)
    for pool in ("token", "avg"):
        model = backbone(pool=pool).eval()
        tokens = model.forward_features(x)  # [3, 1 + 16, 24]
        expected = tokens[:, 0] if pool == "token" else model.fc_norm(tokens[:, 1:].mean(dim=1))
        torch.testing.assert_close(model(x), expected)


def test_it_takes_images_of_other_channels() -> None:
    assert backbone(channels=5)(torch.zeros(2, 5, 32, 32)).shape == (2, 24)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="8 px do not tile an image of 28 px") as error:
        backbone(image_size=28)
    assert "data.image_size (28)" in str(error.value.hint)
    with pytest.raises(InputError, match="embed_dim 26"):
        create_component("backbone", "vit", image_size=32, **{**SIZES, "embed_dim": 26})


def test_it_is_made_on_the_meta_device_too() -> None:
    with torch.device("meta"):
        assert backbone()(torch.zeros(2, 3, 32, 32)).is_meta


def test_the_list_of_names_leaves_torch_out() -> None:
    code = (
        "import sys, simsiam_zoo_vit.plugin as p; list(p.zoo_components());"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_supplies_what_its_readme_lists() -> None:
    mine = [entry for entry in catalog().entries() if entry.distribution == "simsiam-zoo-vit"]
    assert {(entry.kind, entry.name) for entry in mine} == {
        ("backbone", "vit"),
        ("preset", "vit-mnist-5k"),
        ("preset", "vit-imagenet"),
        ("study", "vit"),
    }
    paper = zoo.Recipe.make("vit-imagenet", None, {"dataset.path": "."})
    optim = paper.optim
    assert (optim.name, optim.lr, optim.weight_decay, optim.warmup_epochs) == (
        "adamw",
        1.5e-4,
        0.1,
        40,
    )


def test_every_arm_of_the_study_has_as_many_lr_to_choose_from() -> None:
    name, study = read_study("vit", None)
    plan = plan_study(name, study, "")
    assert not [arm.not_run for arm in plan.arms if arm.not_run]
    assert {len(arm.candidates) for arm in plan.arms} == {3}
