"""The house of the project: which room may import which, and what stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simsiam_zoo.catalog import PARTS, catalog
from simsiam_zoo.recipe import source

PACKAGE = Path(__file__).parents[1] / "simsiam_zoo"
MODULES = sorted(PACKAGE.rglob("*.py"))

FLOORS = (
    ("cli",),
    ("api",),
    ("testing",),
    ("report",),
    ("studies",),
    ("exchange",),
    ("training",),
    ("evaluation",),
    ("components",),
    ("model",),
    ("recipe",),
    ("catalog", "data"),
    ("charts",),
    ("metrics",),
    ("runtime",),
    ("errors",),
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
ABOVE_ALL = {"__main__", "__init__", "plugin"}  # they may use any room, and no room may use them


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """Line and room of every import of the package, also inside functions and TYPE_CHECKING.

    Someone who wants only a type from above wants it at the wrong place as well.
    """
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            # `from simsiam_zoo import errors` names the room after the import.
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, *rest = name.split(".")
            if top == "simsiam_zoo":
                yield node.lineno, rest[0] if rest else "__init__"


def may_import(importer: str, imported: str) -> bool:
    if importer in ABOVE_ALL or importer == imported:
        return True
    return imported in LEVEL and LEVEL[importer] < LEVEL[imported]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    importer = room_of(path)
    assert importer in LEVEL or importer in ABOVE_ALL, f"{importer} has no floor"
    wrong = [
        f"line {line}: {importer} imports {imported}"
        for line, imported in imported_rooms(path)
        if not may_import(importer, imported)
    ]
    assert not wrong


def import_graph() -> dict[str, set[str]]:
    """Module → the modules of the package that it imports, also inside functions."""
    names = {}
    for path in MODULES:
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = path
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        imported = graph.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                below = [f"{node.module}.{alias.name}" for alias in node.names]
                imported.update(one if one in names else node.module for one in below)
        imported &= names.keys() - {name}
    return graph


def test_no_modules_import_each_other_in_a_circle():
    graph = import_graph()
    while leaves := {name for name, imported in graph.items() if not imported}:
        graph = {name: imported - leaves for name, imported in graph.items() if name not in leaves}
    assert not graph, f"circles among, or above: {sorted(graph)}"


WALK = re.compile(r"^\d+\. `([\w/]+\.py)` `([\w.]+)`", re.MULTILINE)


def test_the_walks_that_the_docs_tell_are_short_and_there():
    """From a flag to the module, from a shard to the loss, from a step to the report."""
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text("utf-8")
    walks = [WALK.findall(part) for part in text.split("\n## ")]
    walks = [steps for steps in walks if steps]
    assert len(walks) == 3
    for steps in walks:
        assert len({file for file, _ in steps}) <= 13
        for file, name in steps:
            found = ast.parse((PACKAGE / file).read_text("utf-8")).body
            for part in name.split("."):
                node = next((n for n in found if getattr(n, "name", None) == part), None)
                assert node is not None, f"{file} defines no {name}"
                found = getattr(node, "body", [])


PACKAGES = sorted((PACKAGE.parent / "plugins").glob("*/simsiam_zoo_*/**/*.py"))


@pytest.mark.parametrize("path", [*MODULES, *PACKAGES], ids=lambda path: path.name)
def test_a_file_is_read_in_a_sitting_and_a_function_on_a_screen(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 350
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, functions)]
    long = {node.name: node.end_lineno - node.lineno + 1 for node in nodes}
    assert {name: lines for name, lines in long.items() if lines > 60} == {}


def test_the_rule_itself():
    assert may_import("cli", "errors")
    assert may_import("recipe", "catalog")
    assert not may_import("catalog", "recipe")
    assert not may_import("catalog", "data")
    assert may_import("exchange", "training")
    assert not may_import("training", "exchange")  # a run knows nothing of where it may travel
    assert not may_import("model", "components")
    assert not may_import("components", "plugin")  # it is for packages alone
    assert not may_import("errors", "__init__")  # through the public names, anything could get in


@pytest.mark.parametrize(
    "module", ["", ".plugin", ".catalog", ".recipe", ".cli", ".components.plugin"]
)
def test_light_modules_leave_torch_out(module):
    code = f"import sys, simsiam_zoo{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def compared_strings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and value of every string literal that something is compared or matched with."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        else:
            continue
        for side in sides:
            for leaf in ast.walk(side):  # into the tuple of `in ("none", "mlp")` too
                if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str):
                    yield leaf.lineno, leaf.value


def test_the_core_names_no_component():
    """One mechanism: what a part does is in the part, never in an `if name == "none"`."""
    names = {
        entry.name
        for part in PARTS
        for entry in catalog().entries(part)
        if entry.distribution == "simsiam-zoo"
    }
    assert {"none", "mlp", "cosine", "stop-gradient", "timm"} <= names
    named = [
        f"{path.relative_to(PACKAGE)}:{line}: {value!r}"
        for path in MODULES
        if room_of(path) not in ("components", "model")
        for line, value in compared_strings(path)
        if value in names
    ]
    assert not named


def test_every_module_that_only_shows_is_there():
    """What computes is hashed into the identity of runs: all but what is named as showing."""
    named = {(room, name) for room in source.SHOWS for name in source.SHOWS[room].split()}
    parts = [path.relative_to(PACKAGE).with_suffix("").parts for path in MODULES]
    there = {(room, name) for room, *below in parts for name in ("*", *below[:1])}
    assert not named - there, "recipe/source.py names modules that are gone"
