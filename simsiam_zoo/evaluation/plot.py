"""An evaluation in one picture: where the first figure is right and where it errs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from simsiam_zoo.errors import InputError
from simsiam_zoo.runtime.folders import atomic_write

_NAMED = 40  # classes whose names find room on the axes


def draw_report(report: dict[str, Any], path: Path) -> None:
    """For each figure its confusion matrix, shares of each row, and each class's accuracy.

    Args:
        report: of `evaluate`.
        path: of the PNG.

    Raises:
        InputError: it cannot be written.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed at the end

    shown = [figure for figure in report["figures"] if figure["confusion"] is not None]
    if not shown:
        return
    down = len(shown)
    picture = Figure(figsize=(11, 4.4 * down + 0.4), layout="constrained")
    grid = picture.subplots(down, 2, squeeze=False, width_ratios=(1.15, 1))
    names = report["data"]["class_names"] or [str(i) for i in range(report["data"]["classes"])]
    for (matrix, bars), figure in zip(grid, shown, strict=True):
        low, high = figure["top1_interval"]
        matrix.set_title(
            f"{figure['protocol']}, version {figure['protocol_version']}: top-1"
            f" {100 * figure['top1']:.1f} % ({100 * low:.1f} to {100 * high:.1f})",
            fontsize=9,
        )
        _draw_matrix(picture, matrix, np.array(figure["confusion"]), names)
        _draw_bars(bars, figure, names)
    picture.suptitle(
        f"{report['source']}: {report['network']}, {report['data']['test_images']:,} test images"
        f" of {report['data']['name']}",
        fontsize=10,
    )
    try:
        with atomic_write(path) as file:
            picture.savefig(file, format="png", dpi=110)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None


def _draw_matrix(picture: Any, axes: Any, counts: Any, names: list[str]) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    picture.colorbar(image, ax=axes, shrink=0.85).ax.tick_params(labelsize=7)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("label", fontsize=9)
    axes.tick_params(labelsize=7)
    if len(names) <= _NAMED:
        turned = 90 if max(map(len, names)) > 2 else 0
        axes.set_xticks(range(len(names)), names, rotation=turned)
        axes.set_yticks(range(len(names)), names)
    if len(names) <= 15:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            where = {"ha": "center", "va": "center", "fontsize": 7}
            axes.text(column, row, str(counts[row, column]), color=colour, **where)


def _draw_bars(axes: Any, figure: dict[str, Any], names: list[str]) -> None:
    shares = [share if share is not None else 0.0 for share in figure["per_class"]]
    axes.bar(range(len(names)), shares, color="#4878a8", width=0.8)
    axes.axhline(figure["top1"], color="black", lw=0.8, ls="--", label="top-1")
    axes.set_ylim(0, 1)
    axes.set_title("accuracy of each class", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(fontsize=7, loc="lower right")
    if len(names) <= _NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
