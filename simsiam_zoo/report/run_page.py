"""A run as one HTML page that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.charts.drawing import inline_chart
from simsiam_zoo.charts.lines import run_charts
from simsiam_zoo.report.collect import NEIGHBORS, FeatureMap, K, RunPage, T
from simsiam_zoo.report.pages import render_offline
from simsiam_zoo.training.run import Run

COLORS, SHAPES = 7, 5
"""A class's colour is its number modulo 7, its shape modulo 5: 35 classes look different."""

_PAIRS = 8
_MAP_WIDTH, _MAP_MARGIN = 600, 14


def render_run(run: Run, seen: RunPage | None, notes: Sequence[str] = ()) -> str:
    """The page of a run.

    Args:
        run: complete or not.
        seen: what was seen of its images; None where nothing could be.
        notes: what is missing and why.

    Raises:
        DataError: a file of the run is damaged.
    """
    charts = run_charts(run.metrics)
    return render_offline(
        "run",
        title=run.folder.resolve().name,
        run=run,
        parts=[(kind, _call(run, kind)) for kind in PARTS],
        evidence=_evidence(run),
        figures=_figures(run),
        notes=notes,
        charts=[(chart, inline_chart(chart, f"c{n}")) for n, chart in enumerate(charts)],
        seen=seen,
        dots=_dots(seen.map) if seen else [],
        map_size=_map_size(seen.map) if seen else (0, 0),
        colors=COLORS,
        shapes=SHAPES,
        matrix=_matrix(seen) if seen else [],
        pairs=_pairs(seen) if seen else [],
        knn=f"knn (k={K}, t={T:g})",
        neighbors=NEIGHBORS,
        files=_files(run),
        map_data=_map_data(seen) if seen else None,
    )


def _call(run: Run, kind: str) -> str:
    part = getattr(run.recipe, kind)
    words = ", ".join(f"{key}={value}" for key, value in part.params.items() if value is not None)
    return f"{part.name} ({words})" if words else str(part.name)


def _evidence(run: Run) -> list[tuple[str, str]]:
    """What the verdict rests on, as (what, value)."""
    found = (run.result or {}).get("evidence") or {}
    rows = []
    if (value := found.get("std_sqrt_d")) is not None:
        rows.append(("std × √d", f"{value:.2f}"))
    if (value := found.get("effective_rank")) is not None:
        rows.append(("effective rank", f"{value:.1f} of {found.get('effective_rank_limit')}"))
    if (value := found.get("last_loss")) is not None:
        rows.append(("loss", f"{value:.3f}"))
    if (gain := found.get("knn_gain_interval")) is not None:
        low, mean, high = (f"{100 * float(part):+.1f}" for part in gain)
        rows.append(("kNN gain", f"{mean} points ({low} to {high})"))
    return rows


def _figures(run: Run) -> dict[str, Any]:
    """The figures as a table: protocols across, networks down."""
    columns = list(dict.fromkeys(_protocol(f) for f in run.figures))
    networks = list(dict.fromkeys(f["network"] for f in run.figures))
    found = {(f["network"], _protocol(f)): f["top1"] for f in run.figures}
    rows = [(network, [found.get((network, c)) for c in columns]) for network in networks]
    return {"columns": columns, "rows": rows}


def _protocol(figure: dict[str, Any]) -> tuple[str, int | None, int]:
    return figure["protocol"], figure.get("protocol_version"), figure["test_images"]


def _dots(map: FeatureMap) -> list[dict[str, Any]]:
    """The map's points by class: the page can highlight one class."""
    groups: dict[int, list[tuple[float, float, int]]] = {}
    for place, (label, (x, y)) in enumerate(zip(map.labels, _pixels(map), strict=True)):
        groups.setdefault(label, []).append((x, y, place))
    return [
        {
            "label": label,
            "color": max(label, 0) % COLORS,
            "shape": max(label, 0) % SHAPES,
            "points": groups[label],
        }
        for label in sorted(groups)
    ]


def _map_size(map: FeatureMap) -> tuple[int, int]:
    """Width and height in px; the height follows the points, within limits."""
    tall = float(np.ptp(map.points[:, 1])) if len(map.points) else 1.0
    return _MAP_WIDTH, round(_MAP_WIDTH * min(1.0, max(0.5, tall + 0.02)))


def _pixels(map: FeatureMap) -> list[tuple[float, float]]:
    room = _MAP_WIDTH - 2 * _MAP_MARGIN
    middle = _map_size(map)[1] / 2
    return [
        (round(_MAP_MARGIN + x * room, 1), round(middle - (y - 0.5) * room, 1))
        for x, y in map.points.tolist()
    ]


def _matrix(seen: RunPage) -> list[dict[str, Any]]:
    """Rows of the confusion matrix: name, cells (count, shade 0 to 9, right), elsewhere, recall."""
    if seen.confusion is None or seen.classes is None:
        return []
    rows = []
    for place, label in enumerate(seen.confusion.classes):
        counts = seen.confusion.counts[place]
        elsewhere = seen.confusion.elsewhere[place]
        total = sum(counts) + elsewhere
        cells = [
            {"count": n, "shade": -(-9 * n // total) if total else 0, "right": at == place}
            for at, n in enumerate(counts)
        ]
        recall = counts[place] / total if total else None
        name = seen.classes[label]
        rows.append({"name": name, "cells": cells, "elsewhere": elsewhere, "recall": recall})
    return rows


def _pairs(seen: RunPage) -> list[tuple[str, str, int]]:
    """The most frequent confusions among the classes shown: (class, taken for, images)."""
    if seen.confusion is None or seen.classes is None:
        return []
    found = [
        (n, row, column)
        for row, counts in zip(seen.confusion.classes, seen.confusion.counts, strict=True)
        for column, n in zip(seen.confusion.classes, counts, strict=True)
        if n and row != column
    ]
    worst = sorted(found, key=lambda pair: (-pair[0], pair[1:]))[:_PAIRS]
    return [(seen.classes[row], seen.classes[column], n) for n, row, column in worst]


def _files(run: Run) -> list[tuple[str, str]]:
    names = ("recipe.toml", "lock.toml")
    paths = [run.folder / name for name in names]
    return [(p.name, p.read_text("utf-8", "replace")) for p in paths if p.is_file()]


def _map_data(seen: RunPage) -> dict[str, Any]:
    """The JSON that the page's script reads."""
    return {
        "points": _pixels(seen.map),
        "labels": seen.map.labels,
        "names": seen.classes,
        "sprite": seen.map.thumbnails.uri,
        "columns": seen.map.thumbnails.columns,
        "rows": seen.map.thumbnails.rows,
    }
