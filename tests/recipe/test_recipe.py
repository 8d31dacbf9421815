from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from simsiam_zoo.catalog import Catalog, Component, Plugin, catalog
from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe import recipe as recipe_module
from simsiam_zoo.recipe.layers import COMPONENTS, Text, dataset_spec
from simsiam_zoo.recipe.recipe import recipe_keys

JARGON = re.compile(
    r"pydantic|valid (dict|tuple|int|num|str|bool)|instance of|[Ii]nput should|Traceback|type="
    r"|_type\b|[Ff]ield required|validation error|literal\["
)


def refusal(settings: Mapping[str, object], preset: str = "cifar10") -> str:
    """The message with which `settings` are refused; it must be one for people."""
    with pytest.raises(InputError) as caught:
        Recipe.make(preset, None, settings)
    message = str(caught.value)
    assert not JARGON.search(message), message
    return message


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_recipe(text: str) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(text, "utf-8")
        return path

    return write_recipe


def test_a_file_lies_on_the_preset_and_settings_on_both(write):
    file = write('preset = "cifar10"\n[training]\nepochs = 5\nseed = 5\n[optim]\nlr = 0.5\n')
    recipe = Recipe.make(None, file, {"training.epochs": 7, "optim.momentum": 0.7})
    assert recipe.preset == "cifar10"
    assert recipe.training.epochs == 7
    assert (recipe.training.seed, recipe.optim.lr) == (5, 0.5)
    assert (recipe.optim.momentum, recipe.optim.weight_decay) == (0.7, 5e-4)
    assert recipe.optim.part("predictor").schedule == "constant"  # kept through all layers
    assert Recipe.make().preset == "mnist-5k"


def test_where_the_preset_may_be_stated(write):
    file = write('preset = "cifar10"\n')
    assert Recipe.make("digits", file).dataset.name == "digits"  # the argument is the later layer
    by_setting = Recipe.make(None, file, {"preset": Text("digits")})
    assert by_setting == Recipe.make("digits")
    assert "set twice" in refusal({"preset": "digits"}, preset="cifar10")
    for wrong in ("", 3):
        with pytest.raises(InputError):
            Recipe.make(None, None, {"preset": wrong})


# cifar10 has projector mlp:layers=2,hidden_dim=2048,out_dim=2048; by default mlp has 3 layers.
@pytest.mark.parametrize(
    ("file", "settings", "expected"),
    [
        ("", {"projector": "mlp"}, {"layers": 3, "hidden_dim": 2048}),
        ("", {"projector.name": "mlp"}, {"layers": 3}),
        ("", {"projector.hidden_dim": 64}, {"layers": 2, "hidden_dim": 64}),
        ("", {"projector.name": "mlp", "projector.hidden_dim": 64}, {"layers": 3}),
        ("", {"projector.hidden_dim": 64, "projector": "mlp"}, {"layers": 3, "hidden_dim": 64}),
        ("", {"projector": "mlp:out_dim=64"}, {"layers": 3, "out_dim": 64}),
        ("[projector]\nout_dim = 64", {}, {"layers": 2, "out_dim": 64}),
        ('[projector]\nname = "mlp"\nout_dim = 64', {}, {"layers": 3, "out_dim": 64}),
        (
            '[projector]\nname = "mlp"\nout_dim = 64',
            {"projector.layers": 1},
            {"layers": 1, "out_dim": 64, "hidden_dim": 2048},
        ),
        ("[projector]\nout_dim = 64", {"projector": "mlp"}, {"layers": 3, "out_dim": 2048}),
        ("[projector]\nout_dim = 64", {"projector": "none"}, {}),
    ],
)
def test_stating_a_name_drops_the_parameters_below(write, file, settings, expected):
    recipe = Recipe.make("cifar10", write(file), settings)
    params = recipe.projector.params
    assert {key: params[key] for key in expected} == expected
    assert bool(params) == bool(expected)


def test_one_meaning_however_it_is_spelt(write):
    table = '[projector]\nname = "mlp"\nlayers = 1\nout_dim = 64\noutput_affine = true\n'
    spec = "mlp:layers=1,out_dim=64,output_affine=true"
    keys = {"projector.layers": 1, "projector.out_dim": 64, "projector.output_affine": True}
    typed = {key: Text(str(value).lower()) for key, value in keys.items()}
    spellings = [
        ("", {"projector": spec}),
        ("", {"projector": Text(spec)}),
        ("", {"projector": f"simsiam-zoo/{spec}"}),
        ("", {"projector": {"name": "mlp", "layers": 1, "out_dim": 64, "output_affine": True}}),
        ("", {"projector.name": "mlp", **keys}),
        ("", {"projector": "mlp", **typed}),
        (f'projector = "{spec}"\n', {}),
        (table, {}),
    ]
    made = [Recipe.make("cifar10", write(file), settings) for file, settings in spellings]
    assert all(recipe == made[0] for recipe in made)
    assert made[0].projector.params == {
        "layers": 1,
        "hidden_dim": 2048,
        "out_dim": 64,
        "norm": "all",
        "output_affine": True,
    }


def test_command_line_text_gets_the_keys_type():
    texts = {
        "training.epochs": "3",
        "optim.lr": ".5",
        "optim.weight_decay": "1e-3",
        "data.mean": "[0.1, 0.2, 0.3]",
        "data.workers": "auto",
        "evaluation.baselines": "false",
        "predictor.hidden_dim": "7",
        "dataset.path": "7",  # a string that looks like a number
    }
    recipe = Recipe.make("cifar10", None, {key: Text(text) for key, text in texts.items()})
    assert recipe.training.epochs == 3
    assert (recipe.optim.lr, recipe.optim.weight_decay) == (0.5, 1e-3)
    assert recipe.data.mean == (0.1, 0.2, 0.3)
    assert (recipe.data.workers, recipe.evaluation.baselines) == ("auto", False)
    assert (recipe.predictor.params["hidden_dim"], recipe.dataset.params["path"]) == (7, "7")


def test_the_callers_settings_stay_as_they_are():
    settings = {"dataset": {"name": "shards"}, "dataset.path": "x", "optim": {}, "optim.lr": 1.0}
    Recipe.make("cifar10", None, settings)
    assert settings["dataset"] == {"name": "shards"}
    assert settings["optim"] == {}


KEYS = [path for path, _ in recipe_keys() if path not in COMPONENTS]


@pytest.mark.parametrize(
    "path", [*KEYS, *(f"optim.parts.predictor.{key}" for key in ("lr_scale", "schedule"))]
)
def test_a_misspelt_key_is_refused_with_the_right_one(path):
    section, _, key = path.rpartition(".")
    wrong = key + "x"
    message = refusal({f"{section}.{wrong}".lstrip("."): 1})
    assert f"{wrong!r}" in message
    assert f"[{section}]" in message or not section
    assert re.search(rf"Did you mean .*\b{key}\b", message), message


@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        ({"trainin.epochs": 3}, ["'trainin'", "training"]),
        ({"epochs": 3}, ["'epochs'", "training.epochs"]),
        ({"training.lr": 3}, ["[training]", "'lr'", "optim.lr"]),
        ({"training.": 3}, ["[training]", "Its keys are epochs, batch_size"]),
        ({"optim.parts.predicter.schedule": "constant"}, ["'predicter'", "predictor"]),
        ({"predictor.hiden_dim": 3}, ["'hiden_dim'", "hidden_dim"]),
        ({"predictor": "mlp:hiden_dim=3"}, ["'hiden_dim'", "hidden_dim"]),
        ({"predictor": "mpl"}, ["'mpl'", "mlp"]),
        ({"backbone.name": "resnet18_cifr"}, ["'resnet18_cifr'", "resnet18_cifar"]),
        ({"evaluation.protocols": ["knnn"]}, ["protocol 'knnn'", "knn"]),
        ({"evaluation.protocols": ["knn:kk=3"]}, ["'kk'", "Did you mean k?"]),
        ({"preset.x": 1}, ["preset"]),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(settings, fragments):
    message = refusal(settings)
    assert all(fragment in message for fragment in fragments), message


@pytest.mark.parametrize(
    ("path", "value", "way_out"),
    [
        ("training", 3, "a table, not 3"),
        ("training.epochs", "x", "an int, not 'x'"),
        ("training.epochs", Text("x"), "an int, not 'x'"),
        ("training.epochs", 1.5, "an int, not 1.5"),
        ("training.epochs", True, "an int, not True"),
        ("training.epochs", 0, ">= 1, not 0"),
        ("training.batch_size", 1, ">= 2, not 1"),
        ("training.seed", -1, ">= 0, not -1"),
        ("training.seed", 2**63, f"< {2**63}"),
        ("training.precision", "fp31", "'auto', 'fp32', 'bf16' or 'fp16', not 'fp31'"),
        ("optim.lr", 0, "> 0, not 0"),
        ("optim.lr", float("nan"), "a finite number, not nan"),
        ("optim.lr", Text("inf"), "a finite number, not inf"),
        ("optim.momentum", 1, "< 1.0, not 1"),
        ("optim.weight_decay", -1e-4, ">= 0, not -0.0001"),
        ("optim.parts", 3, "a table, not 3"),
        ("optim.parts.predictor", 3, "a table, not 3"),
        ("optim.parts.predictor.weight_decay", -1.0, "0 or more"),
        ("optim.parts.predictor.weight_decay", "x", "a number or 'inherit', not 'x'"),
        ("optim.parts.loss.weight_decay", float("inf"), "a finite number or 'inherit', not inf"),
        ("data.workers", "al", "an int or 'auto', not 'al'"),
        ("data.workers", -1, "0 or more"),
        ("data.mean", [0.5, 0.5], "too few values: [0.5, 0.5]"),
        ("data.mean", [0.5] * 4, "too many values: [0.5, 0.5, 0.5, 0.5]"),
        ("data.mean", Text("0.5"), "a list, not 0.5"),
        ("data.mean.1", [0.5, float("nan"), 0.5], "a finite number, not nan"),
        ("data.mean.0", ["0.5", 0.5, 0.5], "a number, not '0.5'"),
        ("data.std", [0.5, 0, 0.5], "greater than 0"),
        ("evaluation.crop", 1.5, "<= 1, not 1.5"),
        ("evaluation.protocols", Text("knn"), "a list, not 'knn'"),
        ("evaluation.baselines", Text("yes"), "true or false, not 'yes'"),
        ("logging.knn_epochs", -1, "0 or more"),
        ("predictor", 3, "a name or a table, not 3"),
        ("predictor.name", 3, "a component's name, not 3"),
        ("predictor.hidden_dim", 0, "an int >= 1, not 0"),
        ("predictor.hidden_dim", "64", "an int >= 1, not '64'"),
        ("predictor.hidden_dim", Text("many"), "an int >= 1, not 'many'"),
        ("augmentation.flip_p", float("nan"), "a number from 0 to 1, not nan"),
        ("training.epochs.x", 3, "an int, not a table"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path_and_what_it_has_to_be(path, value, way_out):
    *_, last = path.split(".")
    whole_list = path.removesuffix(f".{last}") if last.isdigit() else path
    message = refusal({whole_list: value})
    where = path.removesuffix(".x")
    # A component's own parameters are told as "hidden_dim of predictor mlp".
    part, _, key = where.partition(".")
    assert where in message or f"{key} of {part}" in message, message
    assert way_out in message


@pytest.mark.parametrize(
    "text", ["[training\nepochs = 3", "\x00", "preset = 3\n", 'extends = "digits"\n']
)
def test_a_file_that_is_no_recipe_is_refused(write, text):
    with pytest.raises(InputError) as caught:
        Recipe.make(None, write(text))
    assert not JARGON.search(str(caught.value))


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b'preset = "\xe9"\n')
    for path in (tmp_path / "no.toml", tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(InputError, match=re.escape(str(path))):
            Recipe.make(None, path)


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown preset 'cifar'(.|\n)*cifar10"):
        Recipe.make("cifar")


@pytest.fixture
def presets(tmp_path, monkeypatch) -> Callable[..., None]:
    """`presets(deep="extends = ...")`: presets that a third party supplies."""
    package = f"presets_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))

    def supply(**texts: str) -> None:
        components = []
        for name, text in texts.items():
            (tmp_path / package / f"{name}.toml").write_text(text)
            components.append(Component("preset", name, f"{package}:{name}.toml", "A preset"))
        components.append(Component("preset", "lost", f"{package}:lost.toml", "A missing file"))
        plugin = Plugin("other", package, "other-zoo", "1.0", "v1", components=tuple(components))
        known = Catalog([*catalog().plugins, plugin])
        monkeypatch.setattr(recipe_module, "catalog", lambda: known)

    return supply


def test_a_preset_lies_on_the_one_that_it_extends(presets):
    presets(
        wide='extends = "cifar10"\n[projector]\nout_dim = 4096\n[training]\nepochs = 9\n',
        deep='extends = "other-zoo/wide"\n[projector]\nname = "mlp"\nlayers = 4\n',
    )
    wide, deep = Recipe.make("wide"), Recipe.make("other-zoo/deep")
    assert (wide.projector.params["layers"], wide.projector.params["out_dim"]) == (2, 4096)
    assert (wide.training.epochs, wide.optim.lr) == (9, 0.03)
    # Stating the name dropped what both layers below had said.
    assert (deep.projector.params["layers"], deep.projector.params["out_dim"]) == (4, 2048)
    assert (deep.training.epochs, deep.optim.lr) == (9, 0.03)
    assert deep.preset == "other-zoo/deep"


@pytest.mark.parametrize(
    ("texts", "name", "error"),
    [
        ({"one": 'extends = "one"\n'}, "one", PluginError),
        ({"one": 'extends = "two"\n', "two": 'extends = "other-zoo/one"\n'}, "two", PluginError),
        ({"one": "[training\n"}, "one", PluginError),
        ({}, "lost", PluginError),
        ({"one": 'extends = "cifar"\n'}, "one", InputError),
    ],
)
def test_presets_that_lead_nowhere_end_with_a_message(presets, texts, name, error):
    presets(**texts)
    with pytest.raises(error) as caught:
        Recipe.make(name)
    assert name in str(caught.value) or "cifar10" in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["./x", "../x", ".", "/data", "~/data", "https://host/x", "a/b-{0..9}", "x.tar", "x.tar.gz"],
)
def test_data_that_is_a_path(path):
    assert dataset_spec(path) == {"name": "shards", "path": path}
    for spelling in (path, Text(path), {"name": "shards", "path": path}):
        dataset = Recipe.make("digits", None, {"dataset": spelling}).dataset
        assert (dataset.name, dataset.params) == ("shards", {"path": path, "test": ""})


def test_data_that_is_a_name():
    for name in ("digits", "mnist-5k", "simsiam-zoo/digits", "shards:path=data/x"):
        assert dataset_spec(name) == name
    shards = Recipe.make("digits", None, {"dataset": "shards:path=data/x"}).dataset
    assert shards.params == {"path": "data/x", "test": ""}


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "training.seed": st.integers(0, 2**63 - 1),
        "training.device": st.text(st.characters(codec="utf-8"), max_size=9),
        "training.checkpoint_minutes": st.floats(1e-300, 1e300),
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
    assert (optim.lr, optim.momentum) == (paper["lr"], 0.9)
    assert (optim.weight_decay, optim.schedule, optim.warmup_epochs) == (
        paper["weight_decay"],
        "cosine",
        0,
    )
    assert {part: own.schedule for part, own in optim.parts.items()} == {"predictor": "constant"}
    assert all(own.weight_decay == "inherit" for own in optim.parts.values())
    assert all(own.lr_scale == 1 for own in optim.parts.values())
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
