"""The metrics of a run, each once: its column of `metrics.jsonl`, label and range.

`docs/verdicts.md` says how each is computed. No torch here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsiam_zoo.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Metric:
    """What a column of `metrics.jsonl` is, or a family of columns: one for each part, view, ...

    `key`: the column; of a family the text that its columns begin with. `label` is a chart's title,
    `note` its unit and how to read it; an axis covers `floor` and `ceiling` at least. A chart shows
    `scale` times the column's values.
    """

    key: str
    label: str
    note: str
    family: bool = False
    floor: float | None = None
    ceiling: float | None = None
    log: bool = False
    scale: float = 1.0

    def columns(self, rows: Iterable[Mapping[str, Any]]) -> list[str]:
        """The columns of this metric that occur in the rows, in the order of their first row."""
        known = dict.fromkeys(key for row in rows for key in row)
        matches = str.startswith if self.family else str.__eq__
        return [key for key in known if matches(key, self.key)]

    def member(self, column: str) -> str:
        """What tells a column of a family from the others: `backbone` of `lr_backbone`."""
        return re.sub(r"(?<=\d)_(?=\d)", " and ", column.removeprefix(self.key)) or column


TRAINED, RAW = "trained network", "raw pixels"
"""Networks of a result's figures: the one that the run trained, and none at all."""

LOSS = Metric("loss", "Loss", "what is minimised")
STD = Metric("std_sqrt_d", "std of z/|z| × √d", "1: scattered, 0: collapsed", False, 0, 1.1)
RANK = Metric("effective_rank", "Effective rank of z", "directions in use", floor=0)
TOP1 = Metric("top1 ", "Top-1 on the way, %", "", True, scale=100.0)
ALIGNMENT = Metric("alignment_", "Alignment", "distance of two views; lower: closer", True, 0)
UNIFORMITY = Metric(
    "uniformity_", "Uniformity", "of each view; lower: more even on the sphere", True
)
GRADIENT = Metric("gradient_norm", "Gradient norm", "logarithmic", log=True)
LR = Metric("lr_", "Learning rate", "of each part", True, floor=0)

CHARTED = (LOSS, STD, RANK, TOP1, ALIGNMENT, UNIFORMITY, GRADIENT, LR)
"""What is drawn of a run, in this order."""

SPEED, _WAIT = "images_per_second", "data_wait"
_LARGE_WAIT = 0.1  # share of the time for which the loop may wait for data without a word


def online_row(protocol: str, top1: float, test_images: int, train_images: int) -> dict[str, Any]:
    """Columns for an evaluation during the run.

    A column is named by the metric and its protocol (`knn (k=20, t=0.1)`) alone, so that it is the
    same for every data set; how many images were predicted, and from how many, stands beside it. A
    value that the training images limit, such as k, is `all` in it.
    """
    protocol = re.sub(rf"={train_images}(?=[,;)])", "=all", protocol)
    return {
        f"{TOP1.key}{protocol}": top1,
        f"test_images {protocol}": test_images,
        f"train_images {protocol}": train_images,
    }


def read_rows(path: Path, tail: int = 0) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; empty where there is none, without a line that a crash tore.

    `tail`: bytes at the file's end that are read; 0: all.
    """
    import json  # not at the top: most commands need it for nothing

    rows: list[dict[str, Any]] = []
    with suppress(OSError), path.open("rb") as file:
        if tail:
            file.seek(max(0, file.seek(0, 2) - tail))
        for line in file.read().splitlines():
            with suppress(ValueError, RecursionError):
                row = json.loads(line)
                rows += [row] if isinstance(row, dict) else []
    return rows


def finite(value: object) -> float | None:
    """The value of a column as a float; None if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


class Latest:
    """The newest value of each metric, as words for a line of progress."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.values: dict[str, Any] = {}
        for row in rows:
            self.values.update(row)

    def update(self, row: Mapping[str, Any]) -> str:
        """Take in a row; what is known now, in words."""
        self.values.update(row)
        return "  ".join(f"{name} {text}" for name, text in self.texts().items())

    def texts(self) -> dict[str, str]:
        """Short name → value, of what is known: `loss` → `-0.534`."""
        values = self.values
        found = {}
        forms = (("loss", LOSS, ".3f"), ("std", STD, ".2f"), ("rank", RANK, ".0f"))
        for name, metric, form in forms:
            if metric.key in values:
                found[name] = format(values[metric.key], form)
        for column in TOP1.columns([values]):
            found[TOP1.member(column).partition(" ")[0]] = f"{100 * values[column]:.1f} %"
        if SPEED in values:
            found["speed"] = f"{values[SPEED]:.0f} img/s"
        # At the first step the loader has only just begun.
        if values.get(_WAIT, 0) > _LARGE_WAIT and values.get("step", 0) > 1:
            found["data wait"] = f"{100 * values[_WAIT]:.0f} %"
        return found


def without_labels_table(evidence: Mapping[str, Any]) -> list[list[str]]:
    """What a result has in place of a kNN gain as rows of text; [] where labels decided."""
    if (found := evidence.get("without_labels")) is None:
        return []
    both = found["trained"], found["untrained"]
    decays = [each["spectrum_decay"] for each in both]
    ranks = [evidence["effective_rank"], evidence["untrained_effective_rank"]]
    least = min((rank for _, rank in found["rank_course"]), default=None)
    return [
        ["", "trained", found["before"]],
        ["effective rank of z", *("" if x is None else f"{x:.1f}" for x in ranks)],
        ["  least over the run", "" if least is None else f"{least:.1f}", ""],
        [f"LiDAR of z, at most {found['lidar_limit']}", *(f"{x['lidar']:.1f}" for x in both)],
        ["neighbours shared by views", *(f"{100 * x['shared_neighbours']:.1f} %" for x in both)],
        ["spectrum's decay, alpha", *("" if x is None else f"{x:.2f}" for x in decays)],
    ]


def top1_table(figures: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The figures of a result as rows of text: protocols across, networks down; [] without any."""
    protocols = list(dict.fromkeys(figure["protocol"] for figure in figures))
    networks = dict.fromkeys(figure["network"] for figure in figures)
    found = {(f["network"], f["protocol"]): f"{100 * f['top1']:.1f} %" for f in figures}
    rows = [[n, *(found.get((n, p), "") for p in protocols)] for n in networks]
    return [["", *protocols], *rows] if rows else []


def figure_table(figures: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The figures of an evaluation as rows of text, a figure each."""
    rows = [["protocol", "version", "top-1", "95 %", "top-5", "worst class"]]
    for figure in figures:
        interval, top5 = figure["top1_interval"], figure["top5"]
        known = [share for share in figure["per_class"] if share is not None]
        rows.append(
            [
                figure["protocol"],
                str(figure["protocol_version"]),
                f"{100 * figure['top1']:.1f} %",
                "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}",
                "" if top5 is None else f"{100 * top5:.1f} %",
                f"{100 * min(known):.1f} %" if known else "",
            ]
        )
    return rows


def all_frozen(figures: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no protocol trained the network."""
    return all(figure.get("frozen", True) for figure in figures)


def top1_by_data(found: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> list[list[str]]:
    """Figures of one network on several data sets as rows: data across, protocols down.

    Each data set has its name and its figures, by the same protocols. Where a protocol's name
    differs, since k or a batch is at most the training set, it has all of the values.
    """
    table: dict[tuple[str, int], dict[int, Mapping[str, Any]]] = {}
    for column, (_, figures) in enumerate(found):
        kinds = [figure["protocol"].partition(" (")[0] for figure in figures]
        for place, figure in enumerate(figures):
            key = kinds[place], kinds[:place].count(kinds[place])
            table.setdefault(key, {})[column] = figure
    rows = [["", *(name for name, _ in found)]]
    for cells in table.values():
        tops = [f"{100 * cells[n]['top1']:.1f} %" if n in cells else "" for n in range(len(found))]
        rows.append([_joined([figure["protocol"] for figure in cells.values()]), *tops])
    return rows


def _joined(names: Sequence[str]) -> str:
    """`knn (k=200, t=0.1)` and `knn (k=80, t=0.1)` as `knn (k=200/80, t=0.1)`."""
    parts = list(zip(*(re.split(r"(?<==)([^,;)]+)", name) for name in names), strict=False))
    return "".join("/".join(dict.fromkeys(each)) for each in parts)


def short_names(metrics: Iterable[str]) -> dict[str, str]:
    """`knn (k=20, t=0.1)` as `knn`, or `knn k=20` where another knn has another k."""
    split = {metric: metric.removesuffix(")").partition(" (")[::2] for metric in metrics}
    short = {}
    for metric, (name, params) in split.items():
        alike = [other.split(", ") for word, other in split.values() if word == name]
        own = [each for each in params.split(", ") if any(each not in other for other in alike)]
        short[metric] = " ".join([name, *own])
    return short


def is_called(protocol: str, word: str) -> bool:
    """Whether the word, `knn`, `knn k=200` or the whole text, means this protocol's figure."""
    own, asked = (re.sub(r"[(),]", " ", text).split() for text in (protocol, word))
    return bool(asked) and own[: len(asked)] == asked


def top1_of(figures: Sequence[Mapping[str, Any]], word: str) -> float:
    """The share of the first figure that the word means. InputError: it means none."""
    for figure in figures:
        if is_called(figure["protocol"], word):
            return float(figure["top1"])
    known = [figure["protocol"] for figure in figures]
    there = f"There are {', '.join(known)}." if known else None
    raise InputError(f"there is no figure of {word!r}", did_you_mean(word, known, there))
