from __future__ import annotations

import pytest

from simsiam_zoo.catalog import Catalog, Plugin, load_target
from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.plugin import Component, Family, Param

WIDTH = Param("width", int, 8, min=1, max=64)
SHARE = Param("share", float, 0.5, min=0, max=1)
BIAS = Param("bias", bool, True)
NORM = Param("norm", str, "all", choices=("all", "hidden"))
RATES = Param("rates", list[float], (0.1, 1), min=0)
FLAGS = Param("flags", list[bool], [True])
STEPS = Param("steps", int, 10, min=1, words=("epoch", "run"))


@pytest.mark.parametrize(
    ("param", "text", "value"),
    [
        (WIDTH, "64", 64),
        (SHARE, "1", 1.0),
        (SHARE, "1e-3", 0.001),
        (BIAS, "False", False),
        (NORM, "hidden", "hidden"),
        (RATES, "0.003/1/1e-3", [0.003, 1.0, 0.001]),
        (RATES, "3", [3.0]),
        (FLAGS, "true/false", [True, False]),
    ],
)
def test_text_becomes_a_value_of_the_declared_type_and_is_spelt_so(param, text, value):
    parsed = param.parse(text, "it")
    assert parsed == value
    assert type(parsed) is (list if param.is_list else param.type)
    assert param.parse(param.spell(parsed), "it") == parsed


def test_a_list_is_an_array_in_toml_and_each_item_is_checked():
    assert RATES.check([1, 0.5], "it") == [1.0, 0.5]
    assert [type(value) for value in RATES.check([1], "it")] == [float]
    assert RATES.describe() == "a list, each a number >= 0"
    assert RATES.type_name == "list[float]"
    assert RATES.parse("0.5/1", "it") == RATES.parse("[0.5, 1]", "it") == [0.5, 1.0]
    with pytest.raises(InputError, match=r"Write a list as 1/2, in TOML as \[1, 2\]"):
        RATES.parse("[0.5", "it")
    for wrong in ([], 1.0, "1", [-1], [True], ["1"], [[1.0]]):
        with pytest.raises(InputError, match="it is a list, each a number >= 0"):
            RATES.check(wrong, "it")
    with pytest.raises(ValueError, match="or a list of one"):
        Param("rates", list[list[int]], [])
    with pytest.raises(InputError, match="default of parameter rates"):
        Param("rates", list[int], [])


def test_a_list_passes_from_a_spec_and_from_toml_to_the_factory(tmp_path, monkeypatch):
    (tmp_path / "lists_zoo.py").write_text("def made(*, rates): return rates")
    monkeypatch.syspath_prepend(tmp_path)
    component = Component("loss", "listed", "lists_zoo:made", "", (RATES,))
    known = Catalog([Plugin("p", "m", "lists-zoo", "1", "v1", components=(component,))])
    assert known.resolve("loss", "listed").create() == [0.1, 1.0]
    assert known.resolve("loss", "listed:rates=1/2").create() == [1.0, 2.0]
    assert known.resolve("loss", "listed", {"rates": [3]}).create() == [3.0]


def test_a_body_that_fails_says_the_file_and_the_line(tmp_path, monkeypatch):
    body = "from math import sqrt\ndef lost():\n    return nm\ndef deep():\n    return sqrt(-1)\n"
    package = tmp_path / "fails_zoo"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "body.py").write_text(body)
    (package / "early.py").write_text("\n\nx = nm\n")
    monkeypatch.syspath_prepend(tmp_path)
    names = ("fails_zoo.body:lost", "fails_zoo.body:deep", "fails_zoo.early:Body")
    components = tuple(Component("loss", f"n{i}", name, "") for i, name in enumerate(names))
    known = Catalog([Plugin("p", "m", "fails-zoo", "1", "v1", components=components)])
    places = ("body.py:3", "body.py:5", "early.py:3")
    for component, place in zip(components, places, strict=True):
        with pytest.raises(PluginError, match="Error: ") as caught:
            known.resolve("loss", component.name).create()
        assert f"(fails_zoo/{place})" in str(caught.value)


@pytest.mark.parametrize(
    ("param", "text", "said"),
    [
        (WIDTH, "0", "an int from 1 to 64"),
        (WIDTH, "65", "an int from 1 to 64"),
        (WIDTH, "1.5", "an int"),
        (SHARE, "nan", "a number from 0 to 1"),
        (Param("lr", float, 0.1), "inf", "a number"),
        (BIAS, "1", "true or false"),
        (NORM, "hiden", "Did you mean hidden?"),
        (STEPS, "0", "an int >= 1, or epoch, or run"),
        (STEPS, "epok", "an int >= 1, or epoch, or run"),
    ],
)
def test_wrong_text_is_refused_with_what_is_right(param, text, said):
    with pytest.raises(InputError, match="it is") as error:
        param.parse(text, "it")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("param", "value"), [(WIDTH, True), (WIDTH, 8.0), (WIDTH, "8"), (BIAS, 1), (SHARE, False)]
)
def test_typed_values_are_not_converted(param, value):
    """TOML says what type it means: `true` for a width is a mistake, not a 1."""
    with pytest.raises(InputError):
        param.check(value, "it")


def test_words_may_stand_for_a_number_in_text_and_in_toml():
    assert STEPS.parse("epoch", "it") == STEPS.check("epoch", "it") == "epoch"
    assert STEPS.parse("3", "it") == 3
    assert Param("share", float, "auto", words=("auto",)).default == "auto"
    with pytest.raises(InputError):
        STEPS.check("3", "it")
    with pytest.raises(ValueError, match="stand in for a number"):
        Param("norm", str, "all", words=("none",))


def test_an_int_is_a_float_where_a_float_is_asked_for():
    assert type(SHARE.check(1, "it")) is float


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "projektor"}, "Did you mean projector?"),
        ({"name": "Mlp"}, "lower case"),
        ({"target": "package.module"}, "module:attribute"),
        ({"params": (WIDTH, WIDTH)}, "declared twice"),
        ({"params": (Param("in_dim", int, 1),)}, "supplied by the host"),
        ({"params": (WIDTH)}, "needs a comma"),
        ({"summary": None}, "are text"),
    ],
)
def test_a_descriptor_that_breaks_the_contract_is_refused(fields, said):
    sound = {"kind": "projector", "name": "mlp", "target": "a:B", "summary": "", "params": (WIDTH,)}
    Component(**sound)
    with pytest.raises(ValueError, match=said):
        Component(**sound | fields)


def test_a_default_obeys_its_own_bounds():
    with pytest.raises(InputError, match="default of parameter width"):
        Param("width", int, 0, min=1)


def test_a_family_says_its_names_when_asked():
    with pytest.raises(ValueError, match="callable"):
        Family("backbone", "lib", names=["a"], target="a:b")  # type: ignore[arg-type]


def test_a_target_that_exits_is_an_error_of_the_component(tmp_path, monkeypatch):
    (tmp_path / "exits_on_import.py").write_text("import sys; sys.exit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"projector mlp cannot be used.*SystemExit"):
        load_target("exits_on_import:Body", "projector mlp")
