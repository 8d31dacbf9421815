"""The notebooks of the docs run from top to bottom, and are stored without what they printed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

SHOWN = {
    "ablation": ["stop-gradient removed", "2 of 2", " seeds, ", "6 runs choose the lr"],
    "first-run": ["learned: kNN gains", "runs/no-stop-gradient", "is the same digit for"],
    "plugin": ["Did you mean residual?", "p is z at the beginning: True", "digest"],
}
"""What each is about, in what it prints or shows."""


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def shown(notebook: Any) -> str:
    """All that its cells print, and the text and HTML of their values."""
    texts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            found = output.get("data", {})
            texts += [output.get("text", ""), *map(str, found.values())]
    return "\n".join(texts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ipykernel", reason="needs ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    if path.stem != "first-run":  # which shows that a run learned; the others need no long one
        for cell in notebook.cells:
            cell.source = re.sub(r'("training.epochs"): \d+', r"\1: 1", cell.source)
    resources = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=300, resources=resources)
    client.execute()
    text = shown(notebook)
    for words in SHOWN[path.stem]:
        assert words in text
    found = [o["text"] for c in notebook.cells for o in c.get("outputs", ()) if "name" in o]
    assert not [text for text in found if "warning:" in text or "Traceback" in text]


def test_each_notebook_is_named_above() -> None:
    assert {path.stem for path in NOTEBOOKS} == SHOWN.keys()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs_and_its_links_lead_somewhere(path: Path) -> None:
    """Figures of another machine would be stale, and a change of one word would change all."""
    notebook = read(path)
    for cell in notebook["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        source = "".join(cell["source"])
        assert all(len(line) <= 110 for line in source.splitlines())
        for target in (
            re.findall(r"\]\(([^)]+)\)", source) if cell["cell_type"] == "markdown" else ()
        ):
            assert "://" in target or (FOLDER / target.partition("#")[0]).exists(), target
