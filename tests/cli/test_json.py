"""What `--json` prints has the fields that docs/reference.md states, command by command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_runs import TINY

from simsiam_zoo.cli import root

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"
SETS = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}".lower())]
STUDY = """
title = "one arm"
base = { preset = "digits" }
[[ablation]]
part = "predictor"
action = "remove"
"""


def documented() -> dict[str, tuple[set[str], set[str]]]:
    """The commands of the table: the fields that are always there, and those that may be."""
    section = REFERENCE.read_text().partition("## JSON\n")[2].partition("\n## ")[0]
    result = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", REFERENCE.read_text(), re.MULTILINE)
    of_result = {name for cell in result for name in re.findall(r"`(\w+)`", cell)}
    found, same = {}, {}
    for command, fields in re.findall(r"^\| `([^|]+)` \| (.+) \|$", section, re.MULTILINE):
        always, _, at_times = fields.partition("; at times ")
        names = set(re.findall(r"`(\w+)`", always))
        may = set(re.findall(r"`(\w+)`", at_times))
        found[command] = names, may | (of_result if "result.json" in always else set())
        if as_of := re.match(r"as of `(\w+)`$", fields):
            same[command] = as_of[1]
    return found | {command: found[other] for command, other in same.items()}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """What a command prints, as JSON; in a folder with two runs, shards and a package."""
    folder = tmp_path_factory.mktemp("json")

    def run(*words: str) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            done = CliRunner().invoke(root, [*words, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    return run


def leaves(group: click.Group, above: str = "") -> set[str]:
    """Every command that can print JSON."""
    found = set()
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= leaves(command, f"{name} ")
        elif any("--json" in param.opts for param in command.params):
            found.add(above + name)
    return found


def test_every_command_but_the_conformance_kit_can_print_json() -> None:
    named = {re.sub(r" -.*| KIND.*| KEY.*", "", command) for command in documented()}
    assert named == leaves(root)
    assert "look" in named


def test_each_command_prints_the_fields_that_the_reference_states(said, digit_shards) -> None:
    small = ["--preset", "digits", "--data", str(digit_shards), *SETS]
    printed = {
        "train": said("train", *small, "--out", "a", "--quiet"),
        "train --dry-run": said("train", *small, "--dry-run"),
    }
    said("train", *small, "--seed", "1", "--out", "b", "--quiet")
    printed |= {
        "runs": said("runs", "."),
        "runs --best": said("runs", ".", "--best", "knn"),
        "compare": said("compare", "a", "b"),
        "evaluate": said("evaluate", "a", "--quiet"),
        "look": said("look", "a", "--map", "pca", "--quiet"),
        "embed": said("embed", "a", "--out", "f.npz", "--quiet"),
        "export": said("export", "a", "--to", "timm"),
        "import": said("import", "a/backbone.safetensors", "--out", "c", "--preset", "digits"),
        "list": said("list", "--kind", "preset"),
        "show KIND NAME": said("show", "preset", "digits"),
        "show KEY": said("show", "optim.lr"),
        "plugin list": said("plugin", "list"),
        "plugin new": said("plugin", "new", "leaky-zoo", "--kind", "loss"),
        "doctor": said("doctor", "--no-run"),
        "ablate --list": said("ablate", "--list"),
    }
    check(printed)


def test_what_reads_data_prints_the_fields_that_the_reference_states(said, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for number in range(4):
        path = images / ("train", "val")[number % 2] / "a" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(path)
    packed = said("pack", str(images), str(tmp_path / "packed"), "--jobs", "1", "--quiet")
    shards = str(tmp_path / "packed")
    inspected = said("inspect", shards, "--quiet")
    assert packed["splits"].keys() == inspected["splits"].keys() == {"train", "test"}
    check(
        {
            "pack": packed,
            "inspect": inspected,
            "index": said("index", shards, "--jobs", "1", "--quiet"),
        }
    )


def test_a_study_prints_the_fields_that_the_reference_states(
    said, digit_shards: Path, tmp_path: Path
) -> None:
    file = tmp_path / "one.toml"
    file.write_text(STUDY)
    small = ["--only", "base", "--jobs", "1", "--set", f"dataset={digit_shards}", *SETS]
    words = ["ablate", str(file), *small, "--out", str(tmp_path / "study")]
    printed = {
        "ablate --dry-run": said(*words, "--dry-run", "--quiet"),
        "ablate": said(*words, "--quiet"),
        "report": said("report", str(tmp_path / "study")),
    }
    check(printed)


def check(printed: dict[str, Any]) -> None:
    table, wrong = documented(), {}
    for command, value in printed.items():
        always, at_times = table[command]
        for each in value if isinstance(value, list) else [value]:
            missing, other = always - each.keys(), each.keys() - always - at_times
            if missing or other:
                wrong[command] = (missing, other)
    assert not wrong
