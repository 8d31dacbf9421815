"""A run as one HTML page that opens offline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.charts.drawing import panels
from simsiam_zoo.charts.lines import Chart, run_charts
from simsiam_zoo.metrics import LOSS, finite, without_labels_table
from simsiam_zoo.report.collect import NEIGHBORS, Confusion, FeatureMap, K, RunPage, T
from simsiam_zoo.report.pages import (
    MINUS,
    compact,
    count,
    fixed,
    percent,
    points,
    render_offline,
)
from simsiam_zoo.training.advice import command
from simsiam_zoo.training.run import Run

COLORS, SHAPES = 7, 5
"""A class's colour is its number modulo 7, its shape modulo 5: 35 classes look different."""

_LAST_LOSS = "mean of the last tenth of the steps"
_PAIRS = 8
_MAP_WIDTH, _MAP_MARGIN = 600, 14


def render_run(run: Run, seen: RunPage | None, notes: Sequence[str] = ()) -> str:
    """The page of a run, complete or not. Raises DataError where a file of it is damaged.

    `seen`: what was seen of its images, None where nothing could be; `notes`: what is missing, why.
    """
    charts = run_charts(run.metrics, run.recipe.marks(), run.baselines)
    files = [run.folder / name for name in ("recipe.toml", "lock.toml")]
    found = (run.result or {}).get("evidence") or {}
    return render_offline(
        "run",
        title=_title(run.folder.resolve()),
        facts=_facts(run),
        run=run,
        parts=[(kind, _call(run, kind)) for kind in (*PARTS, "augmentation")]
        + [("data", _call(run, "dataset"))]
        + [(f"from epoch {epoch}", what) for epoch, what in run.recipe.marks()],
        evidence=_evidence(found),
        advice=[
            (each["reason"], command(run.folder, each["flags"]) if each["flags"] else "")
            for each in (run.result or {}).get("advice") or []
        ],
        figures=_figures(run),
        notes=notes,
        charts=[(chart, drawn, _reading(chart, found)) for chart, drawn in panels(charts, "c")],
        seen=seen,
        channels=run.recipe.data.channels,
        map=_map(seen.map, seen.classes) if seen else None,
        colors=COLORS,
        shapes=SHAPES,
        pairs=_pairs(seen.confusion) if seen and seen.confusion else [],
        knn=f"knn (k={K}, t={T:g})",
        neighbors=NEIGHBORS,
        files=[(path.name, path.read_text("utf-8", "replace")) for path in files if path.is_file()],
    )


def _title(folder: Path) -> str:
    """The folder's name; of a study's run, which is called `run`, its arm and seed."""
    return folder.name if folder.name != "run" else " / ".join(folder.parts[-3:-1])


def _facts(run: Run) -> list[str]:
    """What the head says of a run: preset, data, seed, epochs, the day it was last written."""
    recipe, epochs = run.recipe, run.recipe.training.epochs
    data = recipe.dataset.params.get("path") or recipe.dataset.name
    files = (run.folder / name for name in ("recipe.toml", "metrics.jsonl", "result.json"))
    written = max(path.stat().st_mtime for path in files if path.is_file())
    return [
        f"preset {recipe.preset}",
        f"data {data}",
        f"seed {recipe.training.seed}",
        count(epochs, "epoch"),
        time.strftime("%Y-%m-%d", time.localtime(written)),
    ]


def _call(run: Run, kind: str) -> str:
    part = getattr(run.recipe, kind)
    known = ((key, value) for key, value in part.params.items() if value is not None)
    words = ", ".join(f"{key}={compact(value)}" for key, value in known)
    return f"{part.name} ({words})" if words else str(part.name)


def _evidence(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What the verdict rests on, as (what, value, how to read it)."""
    limit, least = found.get("effective_rank_limit"), finite(found.get("loss_minimum"))
    of_loss = _LAST_LOSS if least is None else f"{_LAST_LOSS}; at best {fixed(least, 0)}"
    rows = [
        (what, fixed(value, digits) + more, how)
        for what, key, digits, more, how in (
            ("std × √d", "std_sqrt_d", 2, "", "1: scattered, 0: collapsed"),
            ("effective rank", "effective_rank", 1, f" of {limit}", "directions in use"),
            ("loss", "last_loss", 3, "", of_loss),
        )
        if (value := finite(found.get(key))) is not None
    ]
    if (gain := found.get("knn_gain_interval")) is not None:
        low, mean, high = map(points, gain)
        rows.append(("kNN gain", f"{mean} points", f"95 %: {low} to {high}"))
    if table := without_labels_table(found):
        (_, _, untrained), _, *rest = table  # the effective rank is above
        rows += [(what, now, f"{untrained}: {then}") for what, now, then in rest if then]
    return rows


def _reading(chart: Chart, found: dict[str, Any]) -> str:
    """What stands below a chart of one line: of the loss the figure that the verdict has too."""
    if len(chart.lines) > 1:
        return ""
    last = finite(found.get("last_loss"))
    if chart.title == LOSS.label and last is not None:
        return f"{_LAST_LOSS}: {fixed(last, 3)}"
    return f"last: {chart.lines[0].points[-1][1]:.4g}".replace("-", MINUS)


def _figures(run: Run) -> dict[str, Any]:
    """The figures as a table: protocols across, networks down."""
    found: dict[str, dict[tuple[Any, ...], tuple[str, str]]] = {}
    for each in (*run.figures, *run.baselines):
        column = each["protocol"], each.get("protocol_version"), each["test_images"]
        ends = [fixed(100 * end, 1) for end in each.get("top1_interval") or ()]
        cell = percent(each["top1"]), " to ".join(ends)
        found.setdefault(each["network"], {})[column] = cell
    columns = list(dict.fromkeys(column for row in found.values() for column in row))
    rows = [(network, [row.get(column) for column in columns]) for network, row in found.items()]
    measured_on = (run.result or {}).get("measured_on", "test")
    return {"columns": columns, "rows": rows, "measured_on": measured_on}


def _map(map: FeatureMap, classes: list[str] | None) -> dict[str, Any]:
    """The map's size in px, its marks (class, x, y, place), and the JSON that its script reads."""
    tall = float(np.ptp(map.points[:, 1]))
    height = round(_MAP_WIDTH * min(1.0, max(0.5, tall + 0.02)))
    room = _MAP_WIDTH - 2 * _MAP_MARGIN
    points = [
        (round(_MAP_MARGIN + x * room, 1), round(height / 2 - (y - 0.5) * room, 1))
        for x, y in map.points.tolist()
    ]
    return {
        "width": _MAP_WIDTH,
        "height": height,
        "dots": [(label, x, y) for label, (x, y) in zip(map.labels, points, strict=True)],
        "script": {
            "points": points,
            "labels": map.labels,
            "names": classes,
            "sprite": map.sprite,
            "columns": map.columns,
        },
    }


def _pairs(found: Confusion) -> list[tuple[int, int, int]]:
    """The most frequent confusions among the classes shown: (class, taken for, images)."""
    pairs = [
        (row, column, n)
        for row, counts in zip(found.classes, found.counts, strict=True)
        for column, n in zip(found.classes, counts, strict=True)
        if n and row != column
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair))[:_PAIRS]
