"""What exists is documented: hooks, kinds, presets, studies, public names.

Commands, options, keys, parts, exit codes and the names of `simsiam_zoo.plugin` are in tables that
tests/test_docs.py makes from the code.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import simsiam_zoo
from simsiam_zoo.catalog import KINDS, catalog, component

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def words(*pages: str) -> set[str]:
    """What stands in backticks there, and each part of it: `zoo.train(recipe)` has train."""
    text = "\n".join((DOCS / page).read_text() for page in pages)
    inline = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {
        word for code in re.findall(r"`([^`]+)`", inline) for word in re.split(r"[^\w-]+", code)
    }


def test_every_hook_has_its_place_in_the_guide() -> None:
    hooks = {
        name
        for name, value in vars(component).items()
        if hasattr(value, f"{component.PROJECT}_spec")
    }
    assert hooks
    assert hooks <= set(re.findall(r"\w+", (DOCS / "plugins.md").read_text()))


def test_every_kind_preset_and_study_is_documented() -> None:
    heads = set(re.findall(r"^## (\S+)$", (DOCS / "parts.md").read_text(), re.MULTILINE))
    assert set(KINDS) == heads | {"preset", "study"}
    assert {*catalog().names("preset")} <= words("recipes.md")
    assert {*catalog().names("study")} <= words("studies.md", "reproduce.md")


def test_every_public_name_is_in_the_python_guide() -> None:
    assert {*simsiam_zoo.__all__} <= words("python.md", "exchange.md")


def test_every_message_in_troubleshooting_is_one_of_the_programs() -> None:
    """Its parts between `...` stand in one string of the code, in this order."""
    code = {text for file in (ROOT / "simsiam_zoo").rglob("*.py") for text in strings(file)}
    table = (DOCS / "troubleshooting.md").read_text().partition("## It stops with an error")[2]
    cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    messages = [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]
    assert len(messages) > 15
    for message in messages:
        literal = re.sub(r"\[optim\]|predictor|'[^']+'", "...", message)  # an example's own words
        pattern = ".*".join(re.escape(part) for part in literal.split("..."))
        assert any(re.search(pattern, text) for text in code), message


def strings(file: Path) -> list[str]:
    """Every string of a module; of an f-string its own words, `...` for the rest."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = (
                each.value if isinstance(each, ast.Constant) else "..." for each in node.values
            )
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found
