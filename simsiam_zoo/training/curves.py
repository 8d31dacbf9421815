"""`curves.png`: the run in one picture."""

from __future__ import annotations

from pathlib import Path

from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.folders import atomic_write
from simsiam_zoo.training.record import Row


def draw_curves(rows: list[Row], recipe: Recipe, verdict: str, path: Path) -> None:
    """Loss, std x sqrt(d), effective rank and kNN against epochs."""
    from matplotlib.figure import Figure  # slow to import, and only needed at the end

    knn = next((key for row in rows for key in row if key.startswith("knn")), None)
    panels = [
        ("loss", "loss", None),
        ("std_sqrt_d", "std of z/|z| × √d", (0.0, 1.1)),
        ("effective_rank", "effective rank of z", None),
        *([(knn, f"top-1, {knn}", None)] if knn else []),
    ]
    figure = Figure(figsize=(3.4 * len(panels), 3.2), layout="constrained")
    steps_per_epoch = _steps_per_epoch(rows)
    for axes, (key, title, limits) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        points = [(row["step"] / steps_per_epoch, row[key]) for row in rows if key in row]
        marker = "o" if len(points) < 30 else ""
        axes.plot(*zip(*points, strict=True) if points else ((), ()), marker=marker, ms=3, lw=1.4)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("epoch", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        if limits:
            axes.set_ylim(*limits)
        elif key != "loss":
            axes.set_ylim(bottom=0)
    parts = ", ".join(
        f"{kind} {getattr(recipe, kind).name}"
        for kind in ("backbone", "projector", "predictor", "gradient", "loss")
    )
    figure.suptitle(f"{parts}, seed {recipe.training.seed}: {verdict}", fontsize=10)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=130)


def _steps_per_epoch(rows: list[Row]) -> float:
    last = max(rows, key=lambda row: row["step"], default=None)
    return last["step"] / last["epoch"] if last and last.get("epoch") else 1.0
