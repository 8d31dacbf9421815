"""The docs' pictures show what the program shows now; `make pictures` makes them anew."""

from __future__ import annotations

import json
import re
import sys
from html import unescape
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import pictures  # noqa: E402

STALE = "make pictures, and look at docs/seeing.png and docs/terminal.svg"
MADE = json.loads((ROOT / "docs" / "pictures.json").read_text())
SVG = (ROOT / "docs" / "terminal.svg").read_text()


def lines_of(svg: str) -> list[str]:
    """The terminal's lines: the texts of the SVG with the same y, one after the other."""
    found: dict[str, str] = {}
    for y, text in re.findall(r'<text [^>]*\by="([\d.]+)"[^>]*>([^<]*)</text>', svg):
        found[y] = found.get(y, "") + unescape(text).replace("\u00a0", " ")
    return [text.strip() for text in found.values() if text.strip()]


def test_the_page_in_the_picture_looks_as_pages_do_now() -> None:
    assert MADE["looks"] == pictures.looks(), STALE


def test_the_terminal_in_the_picture_ends_as_runs_do_now(capsys, monkeypatch) -> None:
    from simsiam_zoo.cli.text import print_result

    monkeypatch.setenv("COLUMNS", str(pictures.COLUMNS))
    print_result(MADE["result"], Path(MADE["run"]))
    printed = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert set(printed) <= set(lines_of(SVG)), STALE


def test_the_study_in_the_docs_is_shown_as_it_would_be_now() -> None:
    files = pictures.study_files()
    assert {"report.md", "plots/top1.svg", "plots/sensitivity.svg"} <= files.keys()
    for name, text in files.items():
        assert (ROOT / "docs" / "five-parts" / name).read_text() == text, (
            f"{name} is stale: python docs/pictures.py --study"
        )


def test_text_in_the_terminal_is_drawn_as_text_in_its_place() -> None:
    svg = pictures.drawn("\x1b[1mbold\x1b[0m <b>&amp;\n  and more")
    assert lines_of(svg) == ["bold <b>&amp;", "and more"]
    assert "<b>" not in svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert "prefers-color-scheme: dark" in svg


@pytest.mark.parametrize("name", ["seeing.png", "terminal.svg"])
def test_a_picture_is_shown_and_small(name: str) -> None:
    assert (ROOT / "docs" / name).stat().st_size < 300_000
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert any(name in page.read_text() for page in pages)
