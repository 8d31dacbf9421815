"""Many runs on one HTML page that opens offline: a list of them, or some side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simsiam_zoo.charts.drawing import panels
from simsiam_zoo.charts.lines import (
    COLORS,
    DASHES,
    Chart,
    Series,
    line_style,
    make_chart,
    metric_points,
    steps_per_epoch,
    thin,
)
from simsiam_zoo.metrics import CHARTED, Metric, finite, short_names
from simsiam_zoo.report.how_sure import p_text
from simsiam_zoo.report.pages import (
    Cell,
    Column,
    Table,
    compact,
    count,
    line,
    number,
    percent,
    points,
    render_offline,
)
from simsiam_zoo.report.study_charts import LegendKey, rows_by_step
from simsiam_zoo.studies.compared_runs import differing
from simsiam_zoo.studies.found_runs import (
    COMPLETE,
    FoundRun,
    age,
    common_folder,
    progress_of,
    short_name,
)

MOST_DRAWN = COLORS * DASHES
"""Runs whose curves a list shows: as many as can be told apart."""

PAIRED = (
    "Intervals (95 %) and p (McNemar's exact test, Holm's correction over the runs) are paired by"
    " image and cover the choice of test images, not that of the seed"
)

_POINTS = 1000  # in a chart's lines together, a few each at least


def render_list(runs: Sequence[FoundRun], common: Path, reload: int = 0) -> str:
    """The page of `runs`, which lie below `common`: a table of all, the curves of the first."""
    names = [short_name(run, common) for run in runs]
    keys, charts = overlay(runs[:MOST_DRAWN], names)
    drawn = "" if len(runs) <= MOST_DRAWN else f"The first {MOST_DRAWN} of the list."
    return _page(
        f"{count(len(runs), 'run')} in {common}",
        keys,
        charts,
        listed=_listed(runs, names),
        drawn=drawn,
        reload=reload,
    )


def render_comparison(runs: Sequence[FoundRun], found: Mapping[str, Any]) -> str:
    """The page of `compare`; `found`: what `studies.compared_runs.compare` gave."""
    common = common_folder([run.folder.parent for run in runs])
    names = [short_name(run, common) for run in runs]
    keys, charts = overlay(runs, names)
    tables = [("What differs", "", _keys_table(found["keys"], names))]
    for metric in found["metrics"]:
        hint = (
            f"{metric['test_images']:,} {metric['measured_on']} images, version"
            f" {metric['version']}. Differences are from {names[0]}, in points."
        )
        if any(gap and gap["n"] for gap in metric["differences"]):
            hint += f" {PAIRED}."
        tables.append((metric["protocol"], hint, _metric_table(metric, names)))
    tables.append(("Verdicts", "", _verdict_table(found["runs"], names)))
    title = " and ".join(names) if len(names) < 3 else f"{len(names)} runs, against {names[0]}"
    return _page(title, keys, charts, tables=tables, notes=found["notes"])


def overlay(runs: Sequence[FoundRun], names: Sequence[str]) -> tuple[list[LegendKey], list[Chart]]:
    """The curves of runs over each other: a chart for each metric that some of them have."""
    read = [rows_by_step(run.folder / "metrics.jsonl") for run in runs]
    keys = [LegendKey(n, line_style(n), names[n]) for n, rows in enumerate(read) if rows]
    charts = (_chart(metric, runs, read, names) for metric in CHARTED)
    return keys, [chart for chart in charts if chart is not None]


def _chart(
    metric: Metric,
    runs: Sequence[FoundRun],
    read: Sequence[list[dict[str, Any]]],
    names: Sequence[str],
) -> Chart | None:
    """The metric's first column, which all runs have; None where none has a point."""
    columns = metric.columns(row for rows in read for row in rows)
    lines, leading, end = [], [], 0.0
    for n, rows in enumerate(read):
        if not rows:
            continue
        epoch = steps_per_epoch(rows)
        end = max(end, max(row["step"] for row in rows) / epoch)
        known = metric_points(metric, columns[0], rows, epoch) if columns else []
        if known:
            points = thin(known, max(20, min(120, _POINTS // len(read))))
            lines.append(Series(points, line_style(n), names[n], str(n), label=names[n]))
            leading += [] if runs[n].verdict == "diverged" else [lines[-1]]
    if not lines:
        return None
    return make_chart(
        metric.label,
        metric.member(columns[0]) if metric.family else metric.note,
        lines,
        end,
        cover=(metric.floor, metric.ceiling),
        leading=leading,
        log=metric.log,
    )


def _page(title: str, keys: Sequence[LegendKey], charts: Sequence[Chart], **values: Any) -> str:
    plain = {"listed": None, "tables": (), "notes": (), "drawn": "", "reload": 0}
    return render_offline(
        "runs",
        "study",
        title=line(title),
        keys=keys,
        panels=panels(charts, "c"),
        **plain | values,
    )


def _listed(runs: Sequence[FoundRun], names: Sequence[str]) -> Table:
    protocols = short_names(dict.fromkeys(name for run in runs for name in run.figures))
    columns = [Column("Run", number=False), Column("What differs", number=False)]
    columns += [Column("Verdict", number=False), *map(Column, protocols.values())]
    columns += [Column("Images", number=False), Column("Age")]
    rows = []
    for run, name, own in zip(runs, names, differing(runs, usual=False), strict=True):
        told = "; ".join(f"{key} = {compact(value)}" for key, value in own.items())
        verdict = line(run.verdict or run.state)
        note = "" if run.state == COMPLETE else progress_of(run)
        mark = verdict if run.verdict else None
        seconds = time.time() - run.changed
        figures = [run.figures.get(protocol) for protocol in protocols]
        rows.append(
            [
                Cell(line(name), sort=name),
                Cell(line(told), line(run.why or ""), sort=told),
                Cell(verdict, note, sort=verdict, verdict=mark),
                *(number(None if each is None else each.top1, 1, 100) for each in figures),
                Cell(run.measured_on if run.figures else "", sort=run.measured_on),
                Cell(age(seconds), sort=-run.changed),
            ]
        )
    return columns, rows


def _keys_table(keys: Mapping[str, Sequence[Any]], names: Sequence[str]) -> Table:
    columns = [Column("Key", number=False), *(Column(line(name), number=False) for name in names)]
    if not keys:
        return columns, [
            [Cell("nothing that decides what is computed"), *(Cell("") for _ in names)]
        ]
    return columns, [
        [Cell(line(key)), *(Cell(line(compact(value))) for value in values)]
        for key, values in keys.items()
    ]


def _metric_table(metric: Mapping[str, Any], names: Sequence[str]) -> Table:
    heads = ("Run", "Top-1", "Difference", "p", "Right alone", "Wrong alone")
    columns = [Column(head, number=head != "Run") for head in heads]
    rows = []
    for name, top1, gap in zip(names, metric["top1"], metric["differences"], strict=True):
        row = [Cell(line(name)), Cell() if top1 is None else Cell(percent(top1))]
        if gap is None:
            row += [Cell("") for _ in range(4)]
        elif gap["n"] is None:
            row += [Cell(points(gap["mean"]), "not paired"), *(Cell("") for _ in range(3))]
        else:
            interval = f"{points(gap['low'])} to {points(gap['high'])}"
            row += [Cell(points(gap["mean"]), interval), Cell(p_text(gap["holm_p"]))]
            row += [Cell(f"{gap['gained']:,}"), Cell(f"{gap['lost']:,}")]
        rows.append(row)
    return columns, rows


def _verdict_table(runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    heads = ("Run", "Verdict", "std × √d", "Effective rank", "Loss", "Seconds", "Seed")
    columns = [Column(head, number=head not in ("Run", "Verdict")) for head in heads]
    rows = []
    for run, name in zip(runs, names, strict=True):
        verdict = line(run["verdict"] or run["state"])
        mark = verdict if run["verdict"] else None
        shown = (("std_sqrt_d", 2), ("effective_rank", 1), ("loss", 3), ("seconds", 0), ("seed", 0))
        cells = [number(finite(run[key]), digits) for key, digits in shown]
        reason = line(str(run["reason"] or ""))
        rows.append([Cell(line(name)), Cell(verdict, reason, verdict=mark), *cells])
    return columns, rows
