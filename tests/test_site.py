"""`make docs`: the site builds without a warning, and its figures follow light and dark."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("sphinx", "myst_parser", "furo", "sphinx_copybutton")
MISSING = [name for name in NEEDED if find_spec(name) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make docs` builds it: a link that leads nowhere, or a page in no list, is an error."""
    folder = tmp_path_factory.mktemp("site")
    strict = ["-q", "-W", "--keep-going", "-n", "-c", "docs", "-d", str(folder / "read")]
    command = [sys.executable, "-m", "sphinx", *strict, ".", str(folder / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_page_is_built_and_in_the_sidebar_of_the_first(site: Path) -> None:
    first = (site / "docs" / "index.html").read_text()
    sidebar = first.partition('class="sidebar-tree"')[2].partition("</div>")[0]
    listed = set(re.findall(r'href="(?:\.\./)?([^"#]+)\.html"', sidebar))
    for page in [*(ROOT / "docs").glob("*.md"), *ROOT.glob("plugins/*/README.md")]:
        built = (site / page.relative_to(ROOT)).with_suffix(".html")
        assert built.is_file()
        name = str(page.relative_to(ROOT).with_suffix(""))
        assert page.stem == "index" or name.removeprefix("docs/") in listed


def test_it_fetches_nothing_from_elsewhere_and_its_words_are_found(site: Path) -> None:
    for page in site.rglob("*.html"):
        if "_downloads" not in page.parts:
            loaded = r'<(?:script|img|iframe|link)[^>]* (?:src|href)="(https?:)?//'
            assert not re.search(loaded, page.read_text()), page
    index = (site / "searchindex.js").read_text()
    assert "docs/studies" in index
    assert '"ablat' in index or "ablat:" in index
