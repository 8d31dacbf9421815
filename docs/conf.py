"""Sphinx's settings: `make docs` builds docs/, and the READMEs that it leads to, into build/site.

The pages are plain Markdown and read as well on GitHub. The sources start at the repository's root,
so that the relative links among them hold. `sphinx-build -c docs . build/site` is the command.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

project = "simsiam-zoo"
html_title = "simsiam-zoo"
root_doc = "docs/index"
include_patterns = ["docs/**.md", "plugins/*/README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
include_patterns += ["SECURITY.md"]
# Folders are named so that they are not even searched.
exclude_patterns = [".*", "build", "dist", "runs", "simsiam_zoo", "tests", "benchmarks"]

extensions = ["myst_parser", "sphinx_copybutton"]
myst_heading_anchors = 4
smartquotes = False  # "--flag" stays as it is typed
nitpicky = True

html_theme = "furo"
html_extra_path = ["site"]  # the first page, which leads to docs/index.html
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_show_copyright = False
copybutton_exclude = ".linenos, .gp, .go"

# Servers that refuse programs, or pages that they make in a browser.
linkcheck_ignore = [r"https://host/.*", r"https?://HOST.*"]
linkcheck_timeout = 20


def contents(app: Any, docname: str, source: list[str]) -> None:
    """Make the sidebar of docs/index.md: its headings are the groups, its links the pages.

    A list that people read on GitHub and a toctree would otherwise be two lists of the same.
    """
    if docname != root_doc:
        return
    groups = re.split(r"^## ", source[0], flags=re.MULTILINE)[1:]
    for group in groups:
        title, _, text = group.partition("\n")
        links = re.findall(r"^- \[([^\]]+)\]\(([^)#]+)\.md\)", text, flags=re.MULTILINE)
        pages = [f"{name} <{from_root(page)}>" for name, page in links]
        if pages:
            lines = ["```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```"]
            source[0] += "\n" + "\n".join(lines) + "\n"


def from_root(page: str) -> str:
    """`data` of docs/ is `/docs/data`, `../plugins/x/README` is `/plugins/x/README`."""
    up = page.startswith("../")
    return f"/{PurePosixPath('' if up else 'docs', page.removeprefix('../'))}"


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", contents)
