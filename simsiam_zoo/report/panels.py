"""Curves as SVG geometry: what the page's template draws and its script reads back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from simsiam_zoo.charts import find_ticks, thin
from simsiam_zoo.report.study_curves import KNN, LOSS, STD, Curve, Point
from simsiam_zoo.report.study_view import View

WIDTH, HEIGHT = 380, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 40

_POINTS = 30_000
"""In a panel's lines together: the page of 40 arms with 5 seeds stays below a few megabytes."""

TITLES = {
    LOSS: ("Loss", "what is minimised"),
    STD: ("std of z/|z| × √d", "1: scattered on the sphere, 0: collapsed"),
    KNN: ("kNN top-1 on the way, %", ""),
}

SCALES = {LOSS: 1.0, STD: 1.0, KNN: 100.0}
"""kNN is told in per cent, as it is in the tables."""


@dataclass(frozen=True)
class Trace:
    """A polyline: one seed's, or the mean of the arm's seeds (`seed` is None)."""

    arm: int
    seed: int | None
    path: str
    single: tuple[float, float] | None
    """Where a line of one point is to be marked."""


@dataclass(frozen=True)
class Chart:
    """A panel, drawn. Ticks are (px, text); `x` and `y` are the axes' ends in values."""

    title: str
    note: str
    traces: list[Trace]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    x: tuple[float, float]
    y: tuple[float, float]
    clipped: bool

    width, height = WIDTH, HEIGHT
    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM


def draw(study: View, curves: Mapping[str, list[Curve]], arms: Collection[int]) -> list[Chart]:
    """Loss, std and kNN of these arms; a panel without curves is left out."""
    chosen = {key: [c for c in each if c.arm in arms] for key, each in curves.items()}
    last = last_epoch(chosen)
    return [_draw(study, key, each, last) for key, each in chosen.items() if each]


def last_epoch(curves: Mapping[str, list[Curve]]) -> float:
    """Where the axes of panels beside each other end."""
    ends = (curve.points[-1][0] for each in curves.values() for curve in each)
    return max(ends, default=1.0)


def limits(study: View, key: str, curves: list[Curve]) -> tuple[float, float, bool]:
    """(low, high, whether lines leave the panel): diverged arms do not stretch the axis."""
    wild = {arm.number for arm in study.arms if "diverged" in arm.verdicts}
    tame = [curve for curve in curves if curve.arm not in wild] or curves
    values = [value for curve in tame for _, value in curve.points]
    values += [0.0, 1.0] if key == STD else []
    low, high = min(values), max(values)
    leaves = any(not low <= value <= high for curve in curves for _, value in curve.points)
    room = 0.04 * (high - low) or max(abs(low), 1.0) / 10
    return low - room, high + room, leaves


def ticks_within(low: float, high: float) -> list[float]:
    """Round numbers on an axis."""
    return [tick for tick in find_ticks([low, high]) if low <= tick <= high]


def note(key: str, curves: list[Curve]) -> str:
    """How to read a panel; of kNN, its settings."""
    return curves[0].key if key == KNN else TITLES[key][1]


def thinned(curves: list[Curve]) -> list[list[Point]]:
    """The curves' points, of many curves fewer each."""
    buckets = max(15, min(120, _POINTS // (2 * len(curves))))
    return [thin(curve.points, buckets) for curve in curves]


def _draw(study: View, key: str, curves: list[Curve], last: float) -> Chart:
    low, high, leaves = limits(study, key, curves)
    span, scale = high - low, SCALES[key]

    def at_x(epoch: float) -> float:
        return round(_LEFT + epoch / last * (WIDTH - _RIGHT - _LEFT), 1)

    def at_y(value: float) -> float:
        far = max(-3.0, min(4.0, (value - low) / span))  # clipped there, and kept short
        return round(HEIGHT - _BOTTOM - far * (HEIGHT - _BOTTOM - _TOP), 1)

    traces = []
    for curve, points in zip(curves, thinned(curves), strict=True):
        pixels = [(at_x(x), at_y(y)) for x, y in points]
        path = " ".join(f"{x:g},{y:g}" for x, y in pixels)
        single = pixels[0] if len(pixels) == 1 else None
        traces.append(Trace(curve.arm, curve.seed, path, single))
    return Chart(
        TITLES[key][0],
        note(key, curves),
        traces,
        [(at_x(x), f"{x:g}") for x in find_ticks([0.0, last]) if x <= last],
        [(at_y(y), f"{scale * y:.4g}".replace("-", "−")) for y in ticks_within(low, high)],
        (0.0, last),
        (scale * low, scale * high),
        leaves,
    )
