"""What a dot plot shows: a row for each arm of a study, and the marks of verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simsiam_zoo.charts.lines import find_ticks

MARKED = (
    "learned",
    "collapsed",
    "diverged",
    "no-gain",
    "worse",
    "no-collapse-seen",
    "undetermined",
    "mixed",
)
"""The verdicts that `template/marks.svg` has a shape for."""

_BARS = {
    "seeds": "± 1 standard deviation over seeds; small marks: seeds",
    "images": "one seed: 95 % interval of the test images",
}


def known_mark(verdict: str | None) -> str:
    """The verdict if it has a mark, else `undetermined`."""
    return verdict if verdict in MARKED else "undetermined"


@dataclass(frozen=True)
class Dot:
    """A row of a dot plot, of shares. `text`: the value, or why there is none.

    `mark`: the verdict that gives the mark its shape and colour. `bar`: ends of the error bar of
    the `seeds`, or of the `images` where there is one seed. `seeds`: (share, verdict) of each of
    several. `baselines`: share by network that was not trained.
    """

    label: str
    is_base: bool
    text: str
    mean: float | None
    mark: str | None
    bar: tuple[float, float] | None = None
    bar_of: str = "seeds"
    seeds: Sequence[tuple[float, str | None]] = ()
    baselines: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class DotPlot:
    """Rows for one metric, and the ends of their common axis, as shares."""

    metric: str
    rows: Sequence[Dot]
    low: float
    high: float

    @classmethod
    def scaled(cls, metric: str, rows: Sequence[Dot]) -> DotPlot:
        """The plot with an axis that has room for all that is in the rows."""
        shares = [share for row in rows for share in (*(row.bar or ()), *row.baselines.values())]
        shares += [row.mean for row in rows if row.mean is not None]
        shares += [share for row in rows for share, _ in row.seeds]
        low, high = min(shares, default=0.0), max(shares, default=1.0)
        room = 0.04 * ((high - low) or 1.0)
        return cls(metric, rows, low - room, high + room)

    def at(self, share: float) -> float:
        """Per cent of the width."""
        return round(100 * (share - self.low) / (self.high - self.low), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """(per cent of the width, text) of each tick: `95 %`, `97.5 %`."""
        found = [tick for tick in find_ticks(self.low, self.high) if self.low <= tick <= self.high]
        return [(self.at(tick), f"{round(100 * tick, 3):g}\u00a0%") for tick in found]

    @property
    def base(self) -> float | None:
        """The base's share."""
        return next((row.mean for row in self.rows if row.is_base), None)

    @property
    def networks(self) -> list[str]:
        """The baselines that occur."""
        return list(dict.fromkeys(name for row in self.rows for name in row.baselines))

    @property
    def marks(self) -> list[str]:
        """The marks that occur."""
        means = [row.mark for row in self.rows if row.mean is not None]
        seeds = [verdict for row in self.rows for _, verdict in row.seeds]
        return list(dict.fromkeys(known_mark(each) for each in means + seeds))

    @property
    def bars(self) -> dict[str, str]:
        """The kinds of error bars that occur, and what they stand for."""
        found = {row.bar_of for row in self.rows if row.bar is not None}
        return {of: told for of, told in _BARS.items() if of in found}
