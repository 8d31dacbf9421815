"""The dot plot: arms as rows, a metric across. Places are per cent of the plot's width."""

from __future__ import annotations

from dataclasses import dataclass

from simsiam_zoo.report.answer import baselines
from simsiam_zoo.report.panels import ticks_within
from simsiam_zoo.report.study_view import Arm, View
from simsiam_zoo.report.tables import mark
from simsiam_zoo.report.text import NARROW, percent, spread


@dataclass(frozen=True)
class Bar:
    """An error bar: one standard deviation of the seeds to each side, or what images alone give.

    Args:
        low, high: shares.
        of: `seeds`, or `images` where one seed is all there is.
    """

    low: float
    high: float
    of: str


@dataclass(frozen=True)
class Dot:
    """An arm's row.

    Args:
        mean: share; None where there is none yet.
        mark: verdict that gives the mark its shape and colour.
        seeds: (share, verdict) of each, where there are several.
        baselines: share by network that was not trained.
        text: the value, or why there is none.
    """

    arm: Arm
    mean: float | None
    mark: str | None
    bar: Bar | None
    seeds: list[tuple[float, str | None]]
    baselines: dict[str, float]
    text: str


@dataclass(frozen=True)
class DotPlot:
    """Rows for one metric, and the axis: ends and ticks as shares."""

    metric: str
    rows: list[Dot]
    low: float
    high: float
    ticks: list[float]
    base: float | None

    def at(self, share: float) -> float:
        """Per cent of the width."""
        return round(100 * (share - self.low) / ((self.high - self.low) or 1.0), 2)

    @property
    def networks(self) -> list[str]:
        """The baselines that occur."""
        return list(dict.fromkeys(name for row in self.rows for name in row.baselines))

    @property
    def marks(self) -> list[str]:
        """The verdicts that occur."""
        means = [row.mark for row in self.rows if row.mean is not None]
        seeds = [verdict for row in self.rows for _, verdict in row.seeds]
        return list(dict.fromkeys(each or "undetermined" for each in means + seeds))

    @property
    def bars(self) -> list[str]:
        """What the error bars that occur stand for."""
        return list(dict.fromkeys(row.bar.of for row in self.rows if row.bar is not None))


def dot_plots(study: View) -> list[DotPlot]:
    """One for each metric that was measured, the main one first."""
    return [_plot(study, metric) for metric in study.metrics]


def _plot(study: View, metric: str) -> DotPlot:
    rows = [_row(arm, metric) for arm in study.arms]
    shares = [share for row in rows for share in _extent(row)]
    low, high = min(shares, default=0.0), max(shares, default=1.0)
    room = 0.04 * ((high - low) or 1.0)
    low, high = low - room, high + room
    ticks = ticks_within(low, high)
    base = next((row.mean for row in rows if row.arm.is_base), None)
    return DotPlot(metric, rows, low, high, ticks, base)


def _row(arm: Arm, metric: str) -> Dot:
    figure = arm.metrics.get(metric)
    known = [(run.top1[metric], run.verdict) for run in arm.shown_runs if metric in run.top1]
    if figure is None:
        return Dot(arm, None, mark(arm), None, known, baselines(arm, metric), _why(arm))
    return Dot(
        arm,
        figure.mean,
        mark(arm),
        _bar(arm, metric),
        known if len(known) > 1 else [],
        baselines(arm, metric),
        percent(figure.mean)
        if figure.std is None
        else f"{spread(figure.mean, figure.std, 1, 100)}{NARROW}%",
    )


def _bar(arm: Arm, metric: str) -> Bar | None:
    figure = arm.metrics[metric]
    if figure.std is not None:
        return Bar(figure.mean - figure.std, figure.mean + figure.std, "seeds")
    alone = [run.intervals[metric] for run in arm.shown_runs if metric in run.intervals]
    return Bar(*alone[0], "images") if len(alone) == 1 else None


def _extent(row: Dot) -> list[float]:
    means = [] if row.mean is None else [row.mean]
    bars = [] if row.bar is None else [row.bar.low, row.bar.high]
    return [*means, *bars, *(share for share, _ in row.seeds), *row.baselines.values()]


def _why(arm: Arm) -> str:
    states = arm.states
    if not states:
        return "not run"
    return ", ".join(states if len(states) == 1 else (f"{n} {s}" for s, n in states.items()))
