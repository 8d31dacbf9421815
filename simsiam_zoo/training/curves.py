"""`curves.svg`: the run in one picture."""

from __future__ import annotations

from pathlib import Path

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.charts.drawing import line_sheet
from simsiam_zoo.charts.lines import run_charts
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.folders import atomic_write_text
from simsiam_zoo.training.run_folder import MetricsRow


def draw_curves(rows: list[MetricsRow], recipe: Recipe, verdict: str, path: Path) -> None:
    """Each metric that the run has against epochs: loss, geometry, top-1, gradient, lr."""
    parts = ", ".join(f"{kind} {getattr(recipe, kind).name}" for kind in PARTS)
    title = f"{parts}, seed {recipe.training.seed}: {verdict}"
    charts = run_charts(rows)
    if charts:
        atomic_write_text(path, line_sheet(title, charts))
