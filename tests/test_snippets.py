"""Every block of code in the docs and READMEs is held.

Shell lines are read by the commands that they name, TOML is a recipe or a study, Python runs (some
of it in other tests, which are named here).

A block that nothing can hold has `<!-- not run: why -->` on the line above it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import torch
from tiny_runs import TINY

import simsiam_zoo as zoo_api
from simsiam_zoo import plugin
from simsiam_zoo.catalog import PARTS, catalog
from simsiam_zoo.cli import root
from simsiam_zoo.errors import ZooError
from simsiam_zoo.model.siamese import Batch
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.expected import Expected
from simsiam_zoo.studies.arms import make_arms
from simsiam_zoo.studies.study import parse_study, read_study

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
]
PYTHON = {
    "docs/python.md": "test_docs.py",
    "docs/plugins.md": "test_docs.py, and below",
    "docs/exchange.md": "exchange/test_export.py",
    "docs/using-plugins.md": "below",
}
"""Pages with Python, and what runs it."""

_BLOCK = re.compile(
    r"(?P<why><!-- not run: .+? -->\n)?^(?P<indent> *)```(?P<language>\w+)"
    r"(?: file=(?P<file>\S+))?\n"
    r"(?P<text>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
_CALL = re.compile(r"(?:^|\s)(?:simsiam-zoo|-m simsiam_zoo)(?: +(?P<words>[^|&>;]*))?")
_PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b|\$|^[A-Z]$|\.\.\.|…")
_SPECS = {f"--{part}": part for part in (*PARTS, "augmentation", "launcher", "protocol")}
_SPECS |= {"--metric": "protocol", "--to": "format", "--log": "logger", "--preset": "preset"}
_MADE_UP = re.compile(r"leaky|my-|swish|mine")
"""Parts and packages that a page lets its reader write."""


class Block(NamedTuple):
    language: str
    file: str | None
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The blocks that say their language, but for those that are marked as not run."""
    for found in _BLOCK.finditer(page.read_text("utf-8")):
        if not found["why"]:
            yield Block(found["language"], found["file"], found["text"])


def lines(page: Path) -> Iterator[tuple[str, bool]]:
    """What a page calls on the command line, and whether it stands in a block of its own."""
    for block in blocks(page):
        if block.language in ("sh", "bash"):
            for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
                found = _CALL.search(re.sub(r"(^|\s)#.*", "", line))
                if found:
                    yield (found["words"] or "").strip(), True
    plain = _BLOCK.sub("", page.read_text("utf-8"))
    for text in re.findall(r"`simsiam-zoo ([^`]+)`", plain):
        if "[OPTIONS]" not in text:  # docs/commands.md is made from the commands
            yield " ".join(text.split()), False


def problem(text: str, whole: bool) -> str | None:
    """What is wrong with a command line; None: nothing. Nothing is run."""
    words = shlex.split(text)
    command: Any = root
    context = click.Context(root, info_name="simsiam-zoo")
    try:
        while isinstance(command, click.Group) and words and not _PLACEHOLDER.search(words[0]):
            if (name := words.pop(0)).startswith("-"):
                return None  # --help, --version
            command = command.get_command(context, name)
        if isinstance(command, click.Group) or (not whole and not words):
            return None  # spoken of
        given = [_filled(word) for word in words if not word.startswith("$")]
        params = command.make_context(command.name, given, parent=context).params
        _names(command, params)
        if not any(_PLACEHOLDER.search(word) for word in words):
            _values(command, params)
    except click.exceptions.Exit:  # --help
        return None
    except click.MissingParameter as error:
        return None if not whole else error.format_message()
    except click.ClickException as error:
        return error.format_message()
    except ZooError as error:
        return str(error)
    return None


def _filled(word: str) -> str:
    """A word with something valid in place of what stands for it."""
    return {"KIND": "predictor", "N": "2", "X": "0.5", "POINTS": "2", "K": "2"}.get(word, word)


def _names(command: click.Command, params: dict[str, Any]) -> None:
    """Resolve every component that is named. Raises ZooError."""
    for param in command.params:
        kind = next((_SPECS[name] for name in param.opts if name in _SPECS), None)
        value = params.get(str(param.name))
        specs = [] if kind is None or value is None else value
        for spec in [specs] if isinstance(specs, str) else specs:
            if not _PLACEHOLDER.search(spec) and not _MADE_UP.search(spec):
                catalog().resolve(str(kind), spec)


def _values(command: click.Command, params: dict[str, Any]) -> None:
    """Make the recipe, or read the study and make its arms. Raises ZooError."""
    from simsiam_zoo.api.given import preset_of
    from simsiam_zoo.cli import options
    from simsiam_zoo.cli.train import _settings

    if any(_MADE_UP.search(str(value)) for value in params.values()):
        return
    if command.name == "train" and not (params["resume"] or params["file"]):
        taken = ("preset", "file", "out", "init", "resume", "allow_bn_change", "locked", "dry_run")
        flags = {k: v for k, v in params.items() if k not in (*taken, "as_json", "quiet")}
        settings = _settings(flags)
        Recipe.make(preset_of(settings, params["preset"]), None, settings, measure=False)
    elif command.name == "ablate" and params["study"] and not params["study"].endswith(".toml"):
        settings = options.settings_of({}, params["assignments"])
        _, study = read_study(params["study"], params["preset"])
        study.on_base(settings)
        for path in settings:
            assert path.partition(".")[0] in Recipe.model_fields, path
    elif command.name == "show":
        kind, name = params["kind"], params["name"]
        if name is not None and "*" not in name:
            catalog().resolve(kind, name)


def main() -> None:
    """Print what is wrong, as JSON: page, line and problem."""
    import simsiam_zoo.catalog.local as local

    local.use_file = lambda path: None  # type: ignore[assignment, return-value]
    found = [
        (str(page.relative_to(ROOT)), text, why)
        for page in PAGES
        for text, whole in lines(page)
        if (why := problem(text, whole)) is not None
    ]
    print(json.dumps(found))


@cache
def installed() -> set[str]:
    """The packages under plugins/ that are installed, as metadata has them."""
    from importlib.metadata import PackageNotFoundError, version

    there = set()
    for page in ROOT.glob("plugins/*/README.md"):
        try:
            version(page.parent.name)
        except PackageNotFoundError:
            continue
        there.add(page.parent.name)
    return there


def test_every_command_line_is_read_by_its_command() -> None:
    """In a process of its own: there all packages of plugins/ are on."""
    if installed() != {page.parent.name for page in ROOT.glob("plugins/*/README.md")}:
        pytest.skip("not all packages under plugins/ are installed")
    env = {key: value for key, value in os.environ.items() if key != "SIMSIAM_ZOO_PLUGINS"}
    env["PYTHONPATH"] = str(ROOT / "tests")
    code = "import test_snippets; test_snippets.main()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not found, "\n".join(f"{page}: simsiam-zoo {text}: {why}" for page, text, why in found)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("train --predictr none", "No such option"),
        ("train --predictor nne", "Did you mean none"),
        ("train --predictor mlp:hidden=3", "hidden"),
        ("train --set optim.lrr=3", "lrr"),
        ("trian", "Did you mean train"),
        ("ablate predictr", "predictor"),
        ("export RUN --to timmm", "timm"),
        ("compare", "Missing"),
        ("show predictor mlpp", "mlp"),
    ],
)
def test_what_is_wrong_is_found(text: str, why: str) -> None:
    assert why in str(problem(text, whole=True))
    assert problem("show predictor mlp", whole=True) is None


def test_shell_scripts_are_scripts_and_make_has_the_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = " ".join(re.findall(r"^([a-z -]+):", makefile, re.MULTILINE)).split()
    scripts = [b.text for page in PAGES for b in blocks(page) if b.language in ("sh", "bash")]
    assert len(scripts) > 50
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, f"{script}: {done.stderr}"
        for target in re.findall(r"^make ([a-z-]+)", script, re.MULTILINE):
            assert target in targets
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"simsiam-zoo\[([\w,-]+)\]", "".join(page.read_text() for page in PAGES))
    for extra in ",".join(extras).split(","):
        assert extra in project["optional-dependencies"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_toml_is_what_it_stands_for(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.language != "toml":
            continue
        tree = tomllib.loads(block.text)
        if "expected" in tree:
            Expected.model_validate(tree["expected"])
        elif "ablation" in tree or "tune" in tree:
            study = parse_study(tree, str(page))
            assert make_arms(study)
        elif not {"project", "tool"} & tree.keys():
            (tmp_path / "recipe.toml").write_text(block.text)
            assert Recipe.make(None, tmp_path / "recipe.toml", measure=False)


def test_other_languages_are_held_or_marked() -> None:
    held = {"sh", "bash", "toml", "text"}
    pages = {str(p.relative_to(ROOT)) for p in PAGES for b in blocks(p) if b.language == "python"}
    assert pages == PYTHON.keys(), "say what runs the Python of a page, or mark it as not run"
    others = {(p.name, b.language) for p in PAGES for b in blocks(p)}
    assert {pair for pair in others if pair[1] not in held | {"python"}} == set()


def python_of(name: str) -> list[Block]:
    return [block for block in blocks(ROOT / "docs" / name) if block.language == "python"]


def test_the_policy_that_the_docs_show_is_the_built_in_one() -> None:
    (block,) = (block for block in python_of("plugins.md") if block.file is None)
    names = {name: getattr(plugin, name) for name in ("GradientPolicy", "StepOutput")}
    exec(block.text, names)
    settings = {key: value for key, value in TINY.items() if key != "evaluation.baselines"}
    model = zoo_api.build(Recipe.make("digits", settings=settings))
    views = [torch.randn(8, 3, 16, 16) for _ in range(2)]
    theirs = model.gradient(model, Batch(views))
    shown = names["StopGradient"]()(model, Batch(views))
    for pair, same in zip(shown.pairs, theirs.pairs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(pair, same, strict=True))
        assert [each.requires_grad for each in pair] == [True, False]


def test_the_part_without_a_package_can_be_trained_with(
    zoo: Any, tmp_path: Path, digit_shards: Path
) -> None:
    (block,) = python_of("using-plugins.md")
    assert block.file
    (tmp_path / block.file).write_text(block.text)
    words = ["--plugin", f"./{block.file}", "--preset", "digits"]
    words += ["--projector", "leaky-relu:slope=0.2"]
    small = {**TINY, "training.epochs": 1}
    del small["projector"]
    words += [w for key, value in small.items() for w in ("--set", f"{key}={_toml(value)}")]
    done = zoo("train", *words, "--data", str(digit_shards), "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "slope = 0.2" in (tmp_path / "run" / "recipe.toml").read_text()


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
