"""The docs cannot drift: tables are made from the code, snippets are run, links lead somewhere.

`python tests/test_docs.py --write` writes the tables anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from doc_tables import EXIT_CODES, ROOT, TABLES, with_table
from PIL import Image
from tiny_runs import TINY

import simsiam_zoo as zoo_api
from simsiam_zoo import errors
from simsiam_zoo.cli import COMMANDS, root
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe.recipe import Recipe
from simsiam_zoo.studies.arms import make_arms
from simsiam_zoo.studies.study import read_study

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", TABLES)
def test_tables_are_those_of_the_code(page: str) -> None:
    there, expected = with_table(page)
    assert there == expected, "run: python tests/test_docs.py --write"


def test_the_reference_has_every_exit_code_environment_variable_and_field(tmp_path) -> None:
    raised = {each.exit_code for each in vars(errors).values() if hasattr(each, "exit_code")}
    assert raised | {0} == EXIT_CODES.keys()
    text = (ROOT / "docs" / "reference.md").read_text()
    sources = [file.read_text() for file in (ROOT / "simsiam_zoo").rglob("*.py")]
    read = r"""environ(?:\.get|\.pop)?[\[(]["']([A-Z_]+)|["'](SIMSIAM_ZOO_[A-Z_]+)["']"""
    names = {name for source in sources for pair in re.findall(read, source) for name in pair}
    internal = {"", "MPLBACKEND", "PYTHONSAFEPATH"}  # set and removed by the program itself
    internal |= {name for name in names if name.startswith(("TORCHELASTIC", "COMP_"))}
    assert {name for name in names - internal if name not in text} == set()
    recipe = Recipe.make("digits", settings=TINY)
    result = zoo_api.train(recipe, tmp_path / "run", quiet=True).result
    assert result is not None
    assert {f"`{key}`" for key in result if f"`{key}`" not in text} == set()
    left = {path.name for path in (tmp_path / "run").iterdir()} - {"checkpoints"}
    assert {f"`{name}`" for name in left if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target.partition("#")[0]).exists(), target


def snippets(language: str, page: Path) -> Iterator[tuple[str, str]]:
    pattern = rf"^```{language}(?: file=(\S+))?\n(.*?)^```"
    return iter(re.findall(pattern, page.read_text(), re.MULTILINE | re.DOTALL))


def commands() -> list[str]:
    found = []
    for page in PAGES:
        for _, block in snippets("sh", page):
            lines = (line.partition("#")[0].strip() for line in block.splitlines())
            found += [line for line in lines if line.startswith("simsiam-zoo ")]
        found += re.findall(r"`(simsiam-zoo [^`]+)`", page.read_text())
    return sorted({line for line in found if not re.search(r"[A-Z]{3,}", line)})


@pytest.mark.parametrize("command", commands())
def test_every_command_that_the_docs_show_is_one(command: str, tmp_path, monkeypatch) -> None:
    """Read up to where it would train: names, flags and values are right."""
    name, *words = command.split()[1:]
    (tmp_path / "narrow.toml").write_text(narrow_recipe())
    if "./photos" in command:
        monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "cache"))
        (tmp_path / "photos").mkdir()
        for i in range(4):
            Image.new("RGB", (40, 40), (60 * i, 0, 0)).save(tmp_path / "photos" / f"{i}.jpg")
    monkeypatch.chdir(tmp_path)
    if "leaky" in command:
        pytest.skip("run below, with its package")
    # A command that is spoken of; some need arguments.
    if not words or words in (["--dry-run"], ["new"], ["check"], ["check", "my-zoo"]):
        assert name in COMMANDS
        return
    if name == "ablate" and "--list" not in words:
        study, *options = (word for word in words if word != "--dry-run")
        preset = options[options.index("--preset") + 1] if "--preset" in options else None
        assert make_arms(read_study(study, preset)[1])
        return
    if {"cuda", "mps"} & set(words):  # no such device here: refused for that alone
        with pytest.raises(InputError, match="device"):
            root.main([name, *words], standalone_mode=False)
        return
    if name == "runs":  # it would look for runs, and watch them
        command = root.get_command(root.make_context("simsiam-zoo", [name]), name)
        assert command is not None
        assert command.make_context(name, words)
        return
    if name == "train" and "--dry-run" not in words:
        words.append("--dry-run")
    root.main([name, *words], standalone_mode=False)


def narrow_recipe() -> str:
    blocks = snippets("toml", ROOT / "docs" / "recipes.md")
    return next(block for _, block in blocks if "narrow.toml" in block)


def test_the_recipe_that_the_docs_show_is_one(tmp_path: Path) -> None:
    file = tmp_path / "narrow.toml"
    file.write_text(narrow_recipe())
    recipe = Recipe.make(None, file)
    assert recipe.projector.hidden_dim == tomllib.loads(file.read_text())["projector"]["hidden_dim"]


def test_the_plugin_that_the_docs_show_builds_installs_and_trains(zoo, tmp_path) -> None:
    package = tmp_path / "leaky-zoo"
    package.mkdir()
    for language in ("toml", "python"):
        for name, text in snippets(language, ROOT / "docs" / "plugins.md"):
            if name:
                (package / name).write_text(text)
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(package)], check=True)

    leaky = {"PYTHONPATH": str(target), "SIMSIAM_ZOO_PLUGINS": "leaky-zoo"}
    shown = zoo("show", "projector", "leaky", **leaky)
    assert "leaky-zoo 0.1.0" in shown.stdout
    small = ["--preset", "digits", "--epochs", "1", "--set", "training.threads=1", "--out", "run"]
    done = zoo("train", *small, "--projector", "leaky:slope=0.2", **leaky)
    assert done.returncode == 0, done.stderr
    assert 'id = "leaky-zoo/leaky"' in (tmp_path / "run" / "lock.toml").read_text()


def test_the_python_that_the_docs_show_runs(install_plugins, digit_shards, tmp_path) -> None:
    """All of the guide in a process of its own, that reads it from a pipe; on few images."""
    blocks = [text for _, text in snippets("python", ROOT / "docs" / "python.md")]
    assert len(blocks) >= 4
    few = f'"dataset": {str(digit_shards)!r}, "training.threads": 1, "training.epochs": 1'
    guide = "\n".join(blocks).replace('"training.epochs": 1', few)
    done = subprocess.run(
        [sys.executable, "-"],
        input=guide,
        env=install_plugins(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "torch.Size([4, 512]) torch.Size([4, 512])" in done.stdout
    assert "\n  trained network " in done.stdout
    assert "Traceback" not in done.stderr  # nor when the interpreter ends


def test_every_command_and_option_has_a_help_text_that_fits_80_columns(zoo) -> None:
    for command in ([], *([name] for name in COMMANDS)):
        text = zoo(*command, "--help", COLUMNS="80").stdout
        assert max(map(len, text.splitlines())) <= 80, command
        assert "simsiam-zoo" in text
        for line in text.partition("Options:")[2].splitlines():
            assert not re.fullmatch(r"  -\S+( \S+)?\s*", line), f"no help: {line}"


if __name__ == "__main__" and "--write" in sys.argv:
    os.environ["SIMSIAM_ZOO_PLUGINS"] = ""  # the built-in components alone, as in the tests
    for page in TABLES:
        (ROOT / "docs" / page).write_text(with_table(page)[1])
