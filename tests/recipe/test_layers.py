from __future__ import annotations

from collections.abc import Callable

import pytest

from simsiam_zoo.catalog import Catalog, Component, Plugin, Text, catalog
from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe import recipe as recipe_module
from simsiam_zoo.recipe.layers import dataset_spec


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
    with pytest.raises(InputError, match="set twice"):
        Recipe.make("cifar10", None, {"preset": "digits"})
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


@pytest.mark.parametrize(
    ("file", "settings", "own_keys"),
    [
        ("", {"optim.momentum": 0.8}, {"momentum": 0.8}),
        ("", {"optim.name": "adamw"}, {"betas": (0.9, 0.999)}),
        ("", {"optim.name": "sgd"}, {"momentum": 0.9}),
        ("[optim]\nmomentum = 0.5", {"optim.lr": 1.0}, {"momentum": 0.5}),
        ("[optim]\nmomentum = 0.5", {"optim.name": "sgd"}, {"momentum": 0.9}),
        (
            '[optim]\nname = "lars"\nmomentum = 0.5',
            {"optim.trust_coefficient": 0.02},
            {"momentum": 0.5, "trust_coefficient": 0.02, "lr_in_momentum": True},
        ),
        ('[optim]\nname = "lars"', {"optim": {"name": "adamw"}}, {"betas": (0.9, 0.999)}),
    ],
)
def test_stating_the_optimiser_drops_what_only_some_have(write, file, settings, own_keys):
    optim = Recipe.make("cifar10", write(file), settings).optim
    assert optim.own_keys() == own_keys
    unused = {"momentum", "betas", "trust_coefficient", "lr_in_momentum"} - own_keys.keys()
    assert all(getattr(optim, key) is None for key in unused)
    # The rest is every optimiser's, and stays.
    assert (optim.weight_decay, optim.part("predictor").schedule) == (5e-4, "constant")


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


def test_of_several_settings_each_is_a_layer_on_the_one_before():
    base = {"predictor.hidden_dim": 64, "training": {"epochs": 3, "batch_size": 32}}
    recipe = Recipe.make("digits", None, [base, {"predictor": "none", "training": {"epochs": 5}}])
    assert (recipe.predictor.name, recipe.predictor.params) == ("none", {})
    assert (recipe.training.epochs, recipe.training.batch_size) == (5, 32)
    with pytest.raises(InputError, match="hidden_dim"):  # together they contradict each other
        Recipe.make("digits", None, {"predictor": "none", "predictor.hidden_dim": 64})


def test_the_callers_settings_stay_as_they_are():
    settings = {"dataset": {"name": "shards"}, "dataset.path": "x", "optim": {}, "optim.lr": 1.0}
    Recipe.make("cifar10", None, settings)
    assert settings["dataset"] == {"name": "shards"}
    assert settings["optim"] == {}


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


def test_a_runs_name_fits_a_file_system(presets):
    presets(**{"x" * 230: 'extends = "digits"\n'})
    recipes = [Recipe.make("x" * 230, None, {"training.seed": seed}) for seed in range(3)]
    names = {recipe.run_name() for recipe in recipes}
    assert {len(name) for name in names} == {120}
    assert len(names) == 3  # what is cut off tells them apart


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


@pytest.mark.parametrize("source", ["pipe:cat x.tar", "ftp://host/x.tar", "https://host/*.tar"])
def test_data_that_nobody_reads_is_refused_before_torch_is_loaded(source):
    with pytest.raises(InputError, match="refused"):
        Recipe.make("digits", None, {"dataset": source})
