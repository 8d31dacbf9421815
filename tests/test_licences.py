"""`docs/licences.md` names the licence of everything that pyproject.toml asks for.

`python tests/test_licences.py --write` writes its table anew, by the metadata of what is installed;
the row of a package that is not installed stays as it is.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
BEGIN, END = "<!-- licences: written by tests/test_licences.py --write -->", "<!-- /licences -->"


def needed() -> dict[str, list[str]]:
    """Package → what asks for it: the core, an extra of it, or a package under plugins/."""
    found: dict[str, list[str]] = {}
    for file in (ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))):
        project = tomllib.loads(file.read_text())["project"]
        extras = project.get("optional-dependencies", {})
        for extra, stated in (("", project["dependencies"]), *extras.items()):
            by = f"{project['name']}[{extra}]" if extra else project["name"]
            for name in (canonicalize_name(Requirement(text).name) for text in stated):
                if not name.startswith("simsiam-zoo"):
                    found.setdefault(name, []).append(by)
    return dict(sorted(found.items()))


def licence(name: str) -> str | None:
    """As the package's metadata state it; None: it is not installed."""
    try:
        stated = metadata(name)
    except PackageNotFoundError:
        return None
    if expression := stated.get("License-Expression"):
        return expression
    classifiers = stated.get_all("Classifier") or []
    named = [each.rpartition("::")[2].strip() for each in classifiers if each.startswith("License")]
    # Some packages have the whole text of the licence there.
    short = [line for line in [stated.get("License", "")] if "\n" not in line.strip()]
    found = [each for each in [*named, *short] if each and each != "OSI Approved"]
    return found[0] if found else "not stated"


def rows_of(text: str) -> dict[str, list[str]]:
    """Package → the cells of its row."""
    table = text.partition(BEGIN)[2].partition(END)[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {row[0].strip("`"): row for row in cells if row and row[0].startswith("`")}


def table(text: str) -> Iterator[str]:
    """The lines of the table; `text` is the page as it stands."""
    yield "| package | licence | needed by |"
    yield "| --- | --- | --- |"
    for name, by in needed().items():
        old = rows_of(text).get(name, ["", "unknown"])[1]
        yield f"| `{name}` | {licence(name) or old} | {', '.join(by)} |"


def test_the_licence_of_each_dependency_is_listed() -> None:
    rows = rows_of(PAGE.read_text("utf-8"))
    assert list(rows) == list(needed()), "python tests/test_licences.py --write"
    for name, by in needed().items():
        assert rows[name][2] == ", ".join(by), "python tests/test_licences.py --write"
    assert not [name for name, row in rows.items() if row[1] in ("", "unknown", "not stated")]


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    page = PAGE.read_text("utf-8")
    head, _, rest = page.partition(BEGIN)
    lines = "\n".join(table(page))
    PAGE.write_text(f"{head}{BEGIN}\n\n{lines}\n\n{END}{rest.partition(END)[2]}", "utf-8")
