from __future__ import annotations

import pytest

from simsiam_zoo.catalog import load_target
from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.plugin import Component, Family, Param

WIDTH = Param("width", int, 8, min=1, max=64)
SHARE = Param("share", float, 0.5, min=0, max=1)
BIAS = Param("bias", bool, True)
NORM = Param("norm", str, "all", choices=("all", "hidden"))
STEPS = Param("steps", int, 10, min=1, words=("epoch", "run"))


@pytest.mark.parametrize(
    ("param", "text", "value"),
    [
        (WIDTH, "64", 64),
        (SHARE, "1", 1.0),
        (SHARE, "1e-3", 0.001),
        (BIAS, "False", False),
        (NORM, "hidden", "hidden"),
    ],
)
def test_text_becomes_a_value_of_the_declared_type(param, text, value):
    parsed = param.parse(text, "it")
    assert parsed == value
    assert type(parsed) is param.type


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
