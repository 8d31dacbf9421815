"""What exists is documented: hooks, kinds, presets, studies, public names.

Commands, options, keys, parts, exit codes and the names of `simsiam_zoo.plugin` are in tables that
tests/test_docs.py makes from the code.
"""

from __future__ import annotations

import re
from pathlib import Path

import simsiam_zoo
from simsiam_zoo.catalog import KINDS, catalog, component

DOCS = Path(__file__).parents[1] / "docs"


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
