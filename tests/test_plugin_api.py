"""`simsiam_zoo.plugin`: all that a plugin imports, and nothing else does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from simsiam_zoo import plugin
from simsiam_zoo.catalog import KINDS
from simsiam_zoo.testing.scaffold import write_package

ROOT = Path(__file__).parents[1]
BODIES = sorted(ROOT.glob("plugins/*/simsiam_zoo_*/*.py"))


def imports(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of every import, wherever it stands; the name is "" for a module."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


def beyond(path: Path, allowed: set[str]) -> list[str]:
    """The imports of simsiam_zoo that are not of these modules."""
    return [
        f"{path.name}:{line}: {module} {name}"
        for line, module, name in imports(path)
        if module.partition(".")[0] == "simsiam_zoo" and module not in allowed
    ]


@pytest.mark.parametrize("path", BODIES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_packages_import_the_one_module(path: Path) -> None:
    assert beyond(path, {"simsiam_zoo.plugin"}) == []


def test_there_are_packages_and_the_rule_finds_what_breaks_it(tmp_path: Path) -> None:
    assert len(BODIES) > 20
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f():\n    from simsiam_zoo.errors import InputError\n")
    assert beyond(wrong, {"simsiam_zoo.plugin"}) == ["wrong.py:2: simsiam_zoo.errors InputError"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_for_an_author_imports_the_one_module(kind: str, tmp_path: Path) -> None:
    for file in write_package(f"tried-{kind}-zoo", kind, tmp_path / "package"):
        if file.suffix == ".py":
            # a test may use the package as its users do: `from simsiam_zoo import Recipe`
            users = {"simsiam_zoo"} if file.parts[0] == "tests" else set()
            assert beyond(tmp_path / "package" / file, {"simsiam_zoo.plugin", *users}) == []


def test_each_name_is_the_one_that_type_checkers_see() -> None:
    """The imports that only they read, the table of homes and `__all__` say the same."""
    seen = {
        name: getattr(import_module(module), name)
        for _, module, name in imports(Path(plugin.__file__))
        if module.startswith("simsiam_zoo.")
    }
    assert set(seen) == set(plugin.__all__) <= set(dir(plugin))
    for name, value in seen.items():
        assert getattr(plugin, name) is value, name
    with pytest.raises(AttributeError, match="no attribute 'Compnent'"):
        plugin.Compnent  # noqa: B018
