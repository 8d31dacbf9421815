"""The report's plots as PNG, to be read at 800 px: dots, curves, and figure 2 where it applies."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simsiam_zoo.report.dots import Dot, DotPlot, dot_plots
from simsiam_zoo.report.panels import (
    SCALES,
    TITLES,
    last_epoch,
    limits,
    note,
    thinned,
    ticks_within,
)
from simsiam_zoo.report.study_curves import Curve
from simsiam_zoo.report.study_page import COLORS, DASHES, Key, figure_2, known_mark, pair_keys
from simsiam_zoo.report.study_page import styles as arm_styles
from simsiam_zoo.report.study_view import View
from simsiam_zoo.report.text import tick
from simsiam_zoo.runtime.folders import atomic_write

NAMES = ("top1.png", "figure2.png", "curves.png")

_COLORS = ("#3d6fa8", "#e0566a", "#1f8a3c", "#b08b00", "#2a9fce", "#a0307a")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.5)), (0, (6, 2, 1.5, 2)))
assert (len(_COLORS), len(_DASHES)) == (COLORS, DASHES)
_INK, _SOFT, _LINE = "#1b2026", "#59636f", "#d9dee4"

_MARKS: dict[str, dict[str, Any]] = {
    "learned": {"marker": "o", "color": "#0b5cad"},
    "collapsed": {"marker": "x", "color": "#b3261e", "mew": 2.4},
    "diverged": {"marker": "^", "color": "#7a2d8f"},
    "undertrained": {"marker": "o", "color": "#8a6100", "mfc": "white", "mew": 1.7},
    "undetermined": {"marker": "D", "color": _SOFT, "mfc": "white", "mew": 1.4},
    "mixed": {"marker": "s", "color": "#b3261e", "mfc": "white", "mew": 1.7},
}
_BASELINES = ("v", "|", "s")
_WIDE = 8.0  # inches; with 200 dots each, 1,600 pixels
_TEXT: dict[str, Any] = {"parse_math": False}  # a dollar sign in a name is a dollar sign


def draw_plots(study: View, curves: Mapping[str, list[Curve]], folder: Path) -> list[Path]:
    """Draw what there is to draw; a plot of an earlier report that has nothing now is removed.

    Raises:
        OSError: one cannot be written.
    """
    drawn = sorted({curve.arm for each in curves.values() for curve in each})
    looks = arm_styles(study)
    pair = figure_2(study, drawn)
    keys = [Key(arm.number, looks[arm.number], arm.label) for arm in study.arms]
    figures = {
        "top1.png": _dots(study),
        "figure2.png": _panels(study, curves, pair_keys(study, pair)),
        "curves.png": _panels(study, curves, [key for key in keys if key.arm in drawn]),
    }
    written = []
    for name, figure in figures.items():
        path = folder / name
        if figure is None:
            path.unlink(missing_ok=True)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(), atomic_write(path) as file:
            warnings.simplefilter("ignore", UserWarning)  # of letters that the font lacks
            figure.savefig(file, format="png", dpi=200)
        written.append(path)
    return written


def _dots(study: View) -> Any:
    """Arms as rows, the main metric across."""
    from matplotlib.figure import Figure

    plot = next(iter(dot_plots(study)), None)
    if plot is None:
        return None
    rows = len(plot.rows)
    figure = Figure(figsize=(_WIDE, 1.5 + 0.29 * rows), layout="constrained")
    axes = figure.subplots()
    for at, row in enumerate(plot.rows):
        _row(axes, plot, row, at)
    if plot.base is not None:
        axes.axvline(plot.base, color=_INK, lw=1, ls=(0, (4, 3)), zorder=1)
    axes.set_xlim(plot.low, plot.high)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_yticks(range(rows), [_short(row.arm.label, 42) for row in plot.rows], **_TEXT)
    for label, row in zip(axes.yaxis.get_majorticklabels(), plot.rows, strict=True):
        label.set(fontweight="bold" if row.arm.is_base else "normal")
    values = axes.secondary_yaxis("right")
    values.set_yticks(range(rows), [row.text for row in plot.rows], fontsize=9, **_TEXT)
    for each in (axes, values):
        each.tick_params(axis="both", length=0, labelsize=9)
        for spine in each.spines.values():
            spine.set_visible(False)
    axes.set_xticks(plot.ticks, [tick(each) for each in plot.ticks])
    axes.xaxis.grid(True, color=_LINE, lw=0.8)
    axes.hlines([y + 0.5 for y in range(rows - 1)], *axes.get_xlim(), color=_LINE, lw=0.5)
    axes.set_axisbelow(True)
    axes.set_title(_short(plot.metric, 90), fontsize=10, loc="left", **_TEXT)
    _legend(figure, *_dot_legend(plot))
    return figure


def _row(axes: Any, plot: DotPlot, row: Dot, at: int) -> None:
    look = _MARKS[known_mark(row.mark)]
    color = look["color"]
    for number, network in enumerate(plot.networks):
        if network in row.baselines:
            marker = _BASELINES[min(number, 2)]
            axes.plot(row.baselines[network], at, marker, color=_SOFT, ms=6, mfc="none", mew=1.1)
    if row.bar is not None:
        style = "-" if row.bar.of == "seeds" else (0, (2, 1.5))
        axes.plot([row.bar.low, row.bar.high], [at, at], ls=style, color=color, lw=1.4)
        if row.bar.of == "seeds":
            axes.plot([row.bar.low, row.bar.high], [at, at], "|", color=color, ms=7, mew=1.4)
    for share, verdict in row.seeds:
        axes.plot(share, at, ls="", ms=3.4, alpha=0.6, **_MARKS[known_mark(verdict)])
    if row.mean is not None:
        axes.plot(row.mean, at, ls="", ms=7, zorder=5, **look)


def _dot_legend(plot: DotPlot) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    handles, labels = [], []
    for verdict in dict.fromkeys(known_mark(each) for each in plot.marks):
        handles.append(Line2D([], [], ls="", ms=6, **_MARKS[verdict]))
        labels.append(verdict)
    for number, network in enumerate(plot.networks):
        marker = _BASELINES[min(number, 2)]
        handles.append(Line2D([], [], ls="", marker=marker, color=_SOFT, mfc="none", ms=6))
        labels.append(network)
    if plot.base is not None:
        handles.append(Line2D([], [], color=_INK, lw=1, ls=(0, (4, 3))))
        labels.append("the base")
    if "seeds" in plot.bars:
        handles.append(Line2D([], [], color=_SOFT, lw=1.4))
        labels.append("± 1 std over seeds")
    if "images" in plot.bars:
        handles.append(Line2D([], [], color=_SOFT, lw=1.4, ls=(0, (2, 1.5))))
        labels.append("one seed: 95 % interval of the test images")
    return handles, labels


def _panels(study: View, curves: Mapping[str, list[Curve]], keys: list[Key]) -> Any:
    """Loss, std and kNN side by side, a line style for each arm."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    arms = {key.arm for key in keys}
    shown = {key: [c for c in each if c.arm in arms] for key, each in curves.items()}
    shown = {key: each for key, each in shown.items() if each}
    if not shown:
        return None
    columns = 2 if max(len(key.label) for key in keys) > 28 else 3
    legend_rows = -(-len(keys) // columns)
    figure = Figure(figsize=(_WIDE, 2.9 + 0.19 * legend_rows), layout="constrained")
    grid = figure.subplots(1, len(shown), squeeze=False)[0]
    looks = {key.arm: _line(key.style) for key in keys}
    for axes, (key, own) in zip(grid, shown.items(), strict=True):
        faint = 0.6 if len(own) <= 60 else 0.25
        for curve, points in zip(own, thinned(own), strict=True):
            alone = sum(each.arm == curve.arm for each in own) == 1
            thin = curve.seed is not None and not alone
            marker = "o" if len(points) == 1 else ""
            wide = {"lw": 0.7, "alpha": faint} if thin else {"lw": 1.6}
            axes.plot(*zip(*points, strict=True), marker=marker, ms=3, **wide, **looks[curve.arm])
        low, high, _ = limits(study, key, own)
        axes.set_ylim(low, high)
        ticks = ticks_within(low, high)
        axes.set_yticks(ticks, [f"{SCALES[key] * y:.4g}".replace("-", "−") for y in ticks])
        axes.set_xlim(0, last_epoch(shown))
        axes.set_title(TITLES[key][0], fontsize=9.5, loc="left", pad=16 if note(key, own) else 6)
        small = {"fontsize": 7, "color": _SOFT, "transform": axes.transAxes}
        axes.text(0, 1.025, _short(note(key, own), 46), **small, **_TEXT)
        axes.set_xlabel("epoch", fontsize=8.5, color=_SOFT)
        axes.tick_params(labelsize=8, color=_LINE, labelcolor=_SOFT)
        axes.grid(axis="y", color=_LINE, lw=0.7)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(_SOFT)
    handles = [Line2D([], [], lw=1.8, **looks[key.arm]) for key in keys]
    _legend(figure, handles, [key.label for key in keys], columns)
    return figure


def _line(style: str) -> dict[str, Any]:
    words = style.split()
    if len(words) < 2:
        return {"color": _INK, "ls": "-", "zorder": 4}
    return {"color": _COLORS[int(words[0][1:])], "ls": _DASHES[int(words[1][1:])]}


def _legend(figure: Any, handles: list[Any], labels: list[str], columns: int = 4) -> None:
    # matplotlib leaves out labels that begin with an underscore
    words = [_short(f" {label}" if label.startswith("_") else label, 46) for label in labels]
    place = {"loc": "outside lower left", "ncols": columns, "frameon": False}
    legend = figure.legend(handles, words, fontsize=8.5, handlelength=2.2, **place)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
