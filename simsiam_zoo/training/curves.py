"""`curves.png`: the run in one picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.folders import atomic_write
from simsiam_zoo.training.record import Row


@dataclass(frozen=True)
class _Panel:
    """Figures that share axes; more than one are told apart by their ends' names."""

    title: str
    keys: Sequence[str]
    bottom: float | None = None
    top: float | None = None


def draw_curves(rows: list[Row], recipe: Recipe, verdict: str, path: Path) -> None:
    """Loss, geometry, kNN, gradient and lr against epochs; a panel for what the run has."""
    from matplotlib.figure import Figure  # slow to import, and only needed at the end

    panels = [panel for panel in _panels(rows) if panel.keys]
    across = min(4, len(panels))
    down = -(-len(panels) // across)
    width, height = 3.4 * across, 2.7 * down + 0.5
    figure = Figure(figsize=(width, height))
    # By hand: matplotlib's own layout takes as long as the drawing.
    figure.subplots_adjust(
        left=0.55 / width,
        right=1 - 0.15 / width,
        bottom=0.5 / height,
        top=1 - 0.7 / height,
        wspace=0.24,
        hspace=0.42,
    )
    steps_per_epoch = _steps_per_epoch(rows)
    grid = figure.subplots(down, across, squeeze=False).flat
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel, rows, steps_per_epoch)
    for axes in list(grid)[len(panels) :]:
        axes.set_axis_off()
    parts = ", ".join(
        f"{kind} {getattr(recipe, kind).name}"
        for kind in ("backbone", "projector", "predictor", "gradient", "loss")
    )
    figure.suptitle(f"{parts}, seed {recipe.training.seed}: {verdict}", fontsize=10)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=130)


def _panels(rows: Iterable[Row]) -> list[_Panel]:
    known = list(dict.fromkeys(key for row in rows for key in row))

    def having(start: str) -> list[str]:
        return [key for key in known if key.startswith(start)]

    knn = having("top1 ")[:1]
    return [
        _Panel("loss", ["loss"]),
        _Panel("std of z/|z| × √d", ["std_sqrt_d"], 0, 1.1),
        _Panel("effective rank of z", ["effective_rank"], 0),
        _Panel(knn[0] if knn else "", knn, 0),
        _Panel("alignment", having("alignment"), 0),
        _Panel("uniformity", having("uniformity")),
        _Panel("gradient norm", having("gradient_norm"), 0),
        _Panel("lr", having("lr_"), 0),
    ]


def _draw(axes: Any, panel: _Panel, rows: list[Row], steps_per_epoch: float) -> None:
    from matplotlib.ticker import MaxNLocator

    several = len(panel.keys) > 1
    for number, key in enumerate(panel.keys):
        points = [(row["step"] / steps_per_epoch, row[key]) for row in rows if key in row]
        x, y = zip(*points, strict=True) if points else ((), ())
        marker = "o" if len(points) < 30 else ""
        # lines that lie on each other are to be seen as several
        style = ("-", "--", ":", "-.")[number % 4]
        label = key.partition("_")[2].replace("_", " and ") if several else None
        axes.plot(x, y, style, marker=marker, ms=3, lw=1.4, label=label)
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel("epoch", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    if several:
        axes.legend(fontsize=7, frameon=False)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if panel.bottom is not None or panel.top is not None:
        axes.set_ylim(bottom=panel.bottom, top=panel.top)


def _steps_per_epoch(rows: list[Row]) -> float:
    last = max(rows, key=lambda row: row["step"], default=None)
    return last["step"] / last["epoch"] if last and last.get("epoch") else 1.0
