from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.layers import COMPONENTS
from simsiam_zoo.recipe.recipe import recipe_keys

KEYS = [path for path, _ in recipe_keys() if path not in COMPONENTS]


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "training.seed": st.integers(0, 2**63 - 1),
        "training.device": st.sampled_from(["auto", "cpu", "mps", "cuda", "cuda:12"]),
        "training.checkpoint_minutes": st.floats(1e-300, 1e300),
        "optim.name": st.sampled_from(["sgd", "lars", "adamw"]),
        "optim.lr": st.floats(1e-12, 1e12),
        "optim.weight_decay": st.floats(0, 1, allow_subnormal=True),
        "optim.parts.loss.weight_decay": st.just("inherit") | st.floats(0, 1),
        "optim.parts.backbone.schedule": st.sampled_from(["inherit", "cosine", "constant"]),
        "data.mean": st.tuples(*[st.floats(-1e9, 1e9)] * 3),
        "data.workers": st.just("auto") | st.integers(0, 99),
        "evaluation.protocols": st.lists(st.sampled_from(["knn", "logistic:c=0.5"]), max_size=3),
        "evaluation.baselines": st.booleans(),
        "backbone": st.sampled_from(["resnet18", "timm:densenet121:drop_path_rate=0.1"]),
        "projector": st.sampled_from(["none", "mlp", "mlp:norm=hidden,output_affine=true"]),
        "predictor": st.sampled_from(["none", "mlp", "linear:bias=false", "fixed-random"]),
        "dataset": st.builds(
            lambda path: {"name": "shards", "path": path},
            st.text(st.characters(codec="utf-8"), max_size=20),
        ),
    },
)


@given(st.sampled_from(["mnist-5k", "digits", "cifar10", "imagenet"]), SETTINGS)
@examples(max_examples=150, deadline=None)
def test_toml_read_back_is_the_same_recipe(tmp_path_factory, preset, settings):
    recipe = Recipe.make(preset, None, settings)
    file = tmp_path_factory.getbasetemp() / "round-trip.toml"
    file.write_text(recipe.to_toml(), "utf-8", newline="")
    again = Recipe.make(None, file)
    assert again == recipe
    assert again.to_toml() == recipe.to_toml()
    # Nothing is implied: every key is written out.
    tree = tomllib.loads(recipe.to_toml())
    assert {path.split(".")[-1] for path in KEYS if path.startswith("training.")} == set(
        tree["training"]
    )


# From arXiv:2011.10566, sections 3 and 4 and appendix D.
VIEWS = {
    "min_scale": 0.2,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "jitter_p": 0.8,
    "gray_p": 0.2,
    "flip_p": 0.5,
    "interpolation": "bilinear",  # of torchvision, as in the released code
}
PAPER = {
    "imagenet": {
        "backbone": ("resnet50", {}),
        "layers": 3,
        "lr": 0.05,
        "weight_decay": 1e-4,
        "epochs": 100,
        "image_size": 224,
        "crop": 224 / 256,
        "views": VIEWS | {"blur_p": 0.5},
    },
    "cifar10": {
        "backbone": ("resnet18_cifar", {}),
        "layers": 2,
        "lr": 0.03,
        "weight_decay": 5e-4,
        "epochs": 800,
        "image_size": 32,
        "crop": 1.0,
        "views": VIEWS,  # no blur
    },
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings_to_the_letter(name):
    paper, recipe = PAPER[name], Recipe.make(name)
    stochastic_depth = {"drop_path_rate": 0.0} if name == "imagenet" else {}
    assert recipe.backbone.name == paper["backbone"][0]
    assert recipe.backbone.params == stochastic_depth
    assert recipe.projector.params == {
        "layers": paper["layers"],
        "hidden_dim": 2048,
        "out_dim": 2048,
        "norm": "all",
        "output_affine": False,
    }
    assert recipe.projector.name == recipe.predictor.name == "mlp"
    assert recipe.predictor.params == {"hidden_dim": 512, "norm": "hidden"}
    assert recipe.gradient.name == "stop-gradient"
    assert recipe.gradient.params == {"sides": "both", "pairs": 1}
    assert recipe.loss.name == "cosine"
    assert recipe.augmentation.params == paper["views"]
    optim, training = recipe.optim, recipe.training
    assert (optim.name, optim.lr, optim.momentum) == ("sgd", paper["lr"], 0.9)
    assert not optim.exclude_norm_and_bias
    assert (optim.weight_decay, optim.schedule, optim.warmup_epochs) == (
        paper["weight_decay"],
        "cosine",
        0,
    )
    assert {part: own.schedule for part, own in optim.parts.items()} == {"predictor": "constant"}
    for part in PARTS:
        own = optim.part(part)
        assert (own.lr_scale, own.weight_decay) == (1, paper["weight_decay"])
        assert not own.exclude_norm_and_bias
    assert (training.batch_size, training.epochs) == (512, paper["epochs"])
    assert recipe.data.image_size == paper["image_size"]
    assert recipe.evaluation.crop == paper["crop"]


def test_a_runs_name_says_what_differs_and_is_one_folder():
    plain = Recipe.make("digits")
    assert plain.run_name() == "digits-seed0"
    other = Recipe.make("digits", None, {"predictor": "none", "training.seed": 3})
    assert other.run_name() == "digits-predictor-none-seed3"
    named = Recipe.make("simsiam-zoo/digits", None, {"backbone": "timm:resnet18"})
    assert "/" not in named.run_name()
    assert ":" not in named.run_name()
