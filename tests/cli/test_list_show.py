from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
import tomllib
import types
from operator import attrgetter

import click
import pytest

import simsiam_zoo.cli as cli
from simsiam_zoo import errors
from simsiam_zoo.api.keys import explain_key
from simsiam_zoo.catalog import KINDS, PARTS, Catalog, Plugin, catalog
from simsiam_zoo.plugin import Family
from simsiam_zoo.recipe.recipe import Recipe, recipe_keys

COMPONENTS = [(entry.kind, entry.call.replace("*", "vgg11_bn")) for entry in catalog().entries()]

LEAVES_OUT = """
import sys
from simsiam_zoo.cli import main
try:
    main({arguments!r})
except SystemExit as exit:
    assert exit.code == 0, exit.code
heavy = {{"torch", "timm", "pydantic", "rich", "numpy"}} & sys.modules.keys()
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["--help"], ["show", "projector", "swish"], ["train", "--help"], ["--version"]],
)
def test_looking_around_imports_neither_torch_nor_anything_heavy(install_plugins, arguments):
    code = LEAVES_OUT.format(arguments=arguments)
    env = install_plugins("swish-zoo")
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_list_of_a_kind_takes_the_plural_and_has_that_kind_only(zoo):
    one, many = (zoo("list", kind, "--json") for kind in ("loss", "losses"))
    assert one.stdout == many.stdout
    assert {row["kind"] for row in json.loads(one.stdout)} == {"loss"}
    assert {row["name"] for row in json.loads(one.stdout)} >= {"cosine", "cross-entropy", "mse"}


def test_every_plural_is_understood():
    for kind in KINDS:
        plural = {"study": "studies", "loss": "losses"}.get(kind, kind + "s")
        assert cli.root.main(["list", plural, "--json"], standalone_mode=False) is None


def test_at_80_columns_nothing_runs_over_and_no_word_is_lost(zoo):
    plugins = ["crash-zoo", "grab-zoo", "swish-zoo"]
    for arguments in (["list"], ["show", "augmentation", "simsiam"], ["show", "dataset", "shards"]):
        wide = zoo(*arguments, plugins=plugins)
        narrow = zoo(*arguments, plugins=plugins, COLUMNS="80")
        assert max(map(len, narrow.stdout.splitlines())) <= 80
        assert sorted(narrow.stdout.split()) == sorted(wide.stdout.split())
    for command in ([], *([name] for name in cli.COMMANDS)):
        text = zoo(*command, "--help", COLUMNS="80").stdout
        assert text.startswith("Usage: simsiam-zoo")
        assert max(map(len, text.splitlines())) <= 80


def terminal_output(env: dict[str, str]) -> str:
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "simsiam_zoo", "list", "losses"]
    with subprocess.Popen(command, stdout=child, stderr=child, env=env) as process:
        os.close(child)
        chunks = []
        try:
            while chunk := os.read(parent, 65536):
                chunks.append(chunk)
        except OSError:  # Linux reports the end of a terminal's output so
            pass
        os.close(parent)
        assert process.wait(60) == 0
    return b"".join(chunks).decode()


def test_control_codes_go_to_a_terminal_only_and_not_under_no_color(zoo, install_plugins):
    env = install_plugins() | {"COLUMNS": "80"}
    env.pop("NO_COLOR", None)
    env["TERM"] = "xterm"
    assert "\x1b[1m" in terminal_output(env)
    assert "\x1b" not in terminal_output(env | {"NO_COLOR": "1"})
    assert "\x1b" not in terminal_output(env | {"TERM": "dumb"})
    assert "\x1b" not in zoo("list").stdout


def test_the_table_names_suppliers_and_ends_with_what_is_wrong(zoo):
    text = zoo("list", plugins=["crash-zoo", "grab-zoo", "swish-zoo"]).stdout
    table, states = text.split("needs attention\n")
    (swish,) = [line for line in table.splitlines() if line.split()[:1] == ["swish"]]
    assert swish.split() == ["swish", "Two-layer", "SiLU", "projector", "(swish-zoo)"]
    (own,) = [line for line in table.splitlines() if line.split()[:1] == ["fixed-random"]]
    assert "simsiam-zoo" not in own
    assert "grab-zoo/mlp" in table
    # the project's own packages, where they are installed, are disabled
    lines = [line for line in states.splitlines() if not line.strip().startswith("simsiam-zoo-")]
    assert [line.split()[:3] for line in lines] == [
        ["crash-zoo", "1.0.0", "broken"],
        ["grab-zoo/resnet18", "shadowed", "the"],
        ["grab-zoo/mlp", "shadowed", "the"],
    ]


def test_a_family_without_names_is_listed_as_broken(monkeypatch, capsys):
    family = Family("backbone", "lib", lambda: 1 / 0, "a:b", summary="A library")
    known = Catalog([Plugin("p", "m", "lib-zoo", "1.0", "v1", components=(family,))])
    monkeypatch.setattr("simsiam_zoo.api.names.catalog", lambda: known)
    cli.root.main(["list"], standalone_mode=False)
    table, states = capsys.readouterr().out.split("needs attention\n")
    assert table.split() == ["backbone", "lib:*", "A", "library", "(lib-zoo)"]
    assert states.split()[:2] == ["lib:*", "broken"]
    assert "ZeroDivisionError" in states


@pytest.mark.parametrize("names", [[3, 4], ["a", None]])
def test_a_family_whose_names_are_no_text_is_listed_as_broken(names, monkeypatch, capsys):
    families = tuple(
        Family("backbone", prefix, lambda: names, "a:b", pretrained=lambda: names)
        for prefix in ("lib", "other")
    )
    known = Catalog([Plugin("p", "m", "lib-zoo", "1.0", "v1", components=families)])
    monkeypatch.setattr("simsiam_zoo.api.names.catalog", lambda: known)
    for words in (["list"], ["list", "backbones", "a*"], ["list", "--pretrained"]):
        cli.root.main(words, standalone_mode=False)
        shown = " ".join(capsys.readouterr().out.split())  # wherever its lines break
        assert f"it gives {names[-1] if names[0] == 'a' else 3!r}" in shown


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_the_examples_of_show_hold(kind, name, capsys):
    """What `show` tells people to write resolves to the component shown, defaults as stated."""
    cli.root.main(["show", kind, name, "--json"], standalone_mode=False)
    shown = json.loads(capsys.readouterr().out)
    known = catalog()
    expected = known.resolve(kind, name)
    *_, spec = shlex.split(shown["example"]["command"])
    if kind in ("launcher", "format", "study"):  # they have no place in a recipe
        assert shown["example"]["toml"] is None
        assert known.resolve(kind, spec) == expected
        return
    table = tomllib.loads(shown["example"]["toml"])
    if kind == "protocol":
        specs = tomllib.loads(spec)["evaluation"]["protocols"]
        assert table["evaluation"]["protocols"] == specs
        assert known.resolve(kind, specs[0]) == expected
        return
    assert known.resolve(kind, spec).id == expected.id
    if kind == "logger":
        assert table["logging"]["loggers"] == [spec]
        assert known.resolve(kind, spec) == expected
        return
    values = {"name": table[kind]} if kind == "preset" else table[kind]
    stated = known.resolve(kind, values.pop("name"), values)
    assert stated.id == expected.id
    placeholders = {key for key, value in values.items() if value == key.upper()}
    assert {k: v for k, v in stated.params.items() if k not in placeholders} == {
        k: v for k, v in expected.params.items() if k not in placeholders
    }


def test_show_prints_what_the_descriptor_says(zoo):
    text = zoo("show", "projectors", "swish", plugins=["swish-zoo"]).stdout
    for said in (
        "projector swish",
        "Two-layer SiLU projector",
        "swish-zoo 0.3.0",
        "arXiv:1710.05941",
        "swish_impl:SwishProjector",
        "swish-zoo/swish",
        "hidden_dim  2048  Hidden width; an int >= 1",
        "simsiam-zoo train --projector swish:hidden_dim=2048",
    ):
        assert said in text


def test_show_explains_every_key_of_a_recipe():
    """`presets` against what each preset resolves to, `default` against the schema."""
    recipes = {name: Recipe.make(name, measure=False) for name in catalog().names("preset")}
    for path, field in recipe_keys():
        shown = explain_key(path)
        assert shown["summary"], path
        if path in (*PARTS, "augmentation", "dataset"):
            continue
        assert shown["summary"] == field.description
        assert shown["valid"].split()[0] != "anything"
        for name, value in shown["presets"].items():
            if value != "auto" and path != "optim.parts":
                found = attrgetter(path)(recipes[name])
                assert ([*found] if isinstance(found, tuple) else found) == value, (path, name)
    shown = explain_key("predictor.hidden_dim")
    assert {each["name"] for each in shown["components"]} >= {"mlp", "fixed-random"}
    assert shown["presets"]["cifar10"] == recipes["cifar10"].predictor.hidden_dim
    assert explain_key("optim.parts.loss.weight_decay")["valid"] == "a number >= 0 or inherit"
    assert explain_key("data.views")["valid"] == "auto, worker, split or device"
    assert "optim.clip_norm" in explain_key("optim")["keys"]


def test_the_content_that_show_prints_is_the_whole_preset(zoo, tmp_path):
    shown = json.loads(zoo("show", "preset", "digits", "--json").stdout)
    assert shown["extends"] == ["mnist-5k", "mnist-5k-resnet10t"]
    (tmp_path / "recipe.toml").write_text('preset = "digits"\n' + shown["content"])
    assert Recipe.of_run(tmp_path / "recipe.toml") == Recipe.make("digits")
    text = zoo("show", "preset", "digits").stdout
    assert all(line in text for line in shown["content"].splitlines())


def test_a_preset_is_listed_with_what_it_costs(zoo):
    rows = {
        row["name"]: row for row in json.loads(zoo("list", "--kind", "preset", "--json").stdout)
    }
    assert rows["mnist-5k"]["cost"] == "20 epochs of mnist-5k"
    assert rows["cifar10"]["cost"] == "800 x 50,000 images"
    assert rows["photos"]["cost"] == "epochs by the data"
    assert "20 epochs of mnist-5k" in zoo("list", "presets").stdout


def test_show_of_a_family_gives_its_names(zoo):
    shown = json.loads(zoo("show", "backbone", "timm:*", "--json").stdout)
    assert {"resnet18", "densenet121", "vgg16_bn"} <= set(shown["names"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "projector", "mpl"], 2, "Did you mean mlp?"),
        (["show", "projetor", "mlp"], 2, "Did you mean projector"),
        (["list", "thing"], 2, "The kinds are backbone"),
        (["lst"], 2, "Did you mean list?"),
        (["list", "--jsn"], 2, "--json"),
        (["show"], 2, "Missing argument 'KIND|KEY'"),
        (["show", "study"], 2, "simsiam-zoo list study"),
        (["show", "lr"], 2, "Did you mean optim.lr?"),
        (["show", "optim.lrr"], 2, "Did you mean optim.lr "),
        (["show", "predictor.hiden_dim"], 2, "Did you mean predictor.hidden_dim "),
        (["show", "resnet18"], 2, "simsiam-zoo show backbone resnet18"),
        (["list", "presets", "--kind", "loss"], 2, "the kind is said twice"),
        (["show", "projector", "crash-zoo/x"], 3, "libcrash.so"),
    ],
)
def test_wrong_input_ends_with_one_message_and_its_code(zoo, arguments, code, said):
    run = zoo(*arguments, plugins=["crash-zoo"])
    assert run.returncode == code
    assert said in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InputError("no such thing", "try another"), 2),
        (errors.PluginError("no such thing"), 3),
        (errors.DataError("no such thing"), 4),
        (errors.DivergedError("no such thing"), 5),
        (errors.StoppedError("no such thing"), 75),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_a_message_and_a_code_in_one_place(error, code, monkeypatch, capsys):
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setitem(sys.modules, "failing_module", types.SimpleNamespace(command=failing))
    monkeypatch.setitem(cli.COMMANDS, "fail", ("failing_module:command", "Fails."))
    for debug in ([], ["--debug"]):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["fail", *debug])
        assert exit_.value.code == code
        said = capsys.readouterr().err
        assert str(error) in said
        assert ("Traceback" in said) == (bool(debug) and isinstance(error, errors.ZooError))


def test_a_reader_that_goes_away_is_met_in_silence(install_plugins):
    for arguments in (["list"], ["show", "backbone", "timm:*", "--json"]):
        command = [sys.executable, "-m", "simsiam_zoo", *arguments]
        read, write = os.pipe()
        os.close(read)
        run = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=install_plugins())
        os.close(write)
        assert run.stderr == b""
        assert run.returncode == 1


def test_version_is_the_distributions(zoo):
    import importlib.metadata

    version = importlib.metadata.version("simsiam-zoo")
    assert zoo("--version").stdout == f"simsiam-zoo {version}\n"


@pytest.mark.parametrize(
    ("words", "found", "missing"),
    [
        ("li", {"list"}, {"show"}),
        ("show proj", {"projector"}, {"predictor"}),
        ("show projector s", {"swish"}, {"mlp"}),
        ("show projectors m", {"mlp"}, {"swish"}),
        ("show backbone ", {"timm:", "resnet18_cifar"}, {"vgg16_bn"}),
        ("show backbone vgg16", {"vgg16_bn"}, {"vgg11"}),
        ("train --predictor fix", {"fixed-random"}, {"mlp"}),
        ("show nonsense x", set(), {"mlp"}),
    ],
)
def test_the_shell_completes_names(zoo, words, found, missing):
    """As bash asks, and with a broken plugin, which must not write into the line being typed."""
    run = zoo(
        plugins=["crash-zoo", "swish-zoo"],
        _SIMSIAM_ZOO_COMPLETE="bash_complete",
        COMP_WORDS=f"simsiam-zoo {words}",
        COMP_CWORD=str(len(words.split(" "))),
    )
    offered = {line.partition(",")[2] for line in run.stdout.splitlines()}
    assert found <= offered
    assert not missing & offered
    assert run.stderr == ""


def test_the_completion_script_is_clicks(zoo):
    script = zoo(_SIMSIAM_ZOO_COMPLETE="bash_source").stdout
    assert "_SIMSIAM_ZOO_COMPLETE=bash_complete" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
