"""Runs chosen from many, and runs side by side: which keys differ, and what that did.

Figures are compared where they are of the same test images by the same protocol and version, paired
by image where it is known which images each run got right.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from simsiam_zoo.errors import InputError, did_you_mean
from simsiam_zoo.metrics import finite
from simsiam_zoo.recipe.layers import COMPONENTS
from simsiam_zoo.recipe.recipe import operational_paths
from simsiam_zoo.studies.found_runs import COMPLETE, Figure, FoundRun

_CONDITION = re.compile(r"(?P<key>[^=!<>]+)(?P<how>==|!=|<=|>=|=|<|>)(?P<value>.*)", re.DOTALL)
_HOW: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

FIELDS = ("age", "name", "state", "verdict", "measured_on")
"""What a run is asked by, beside its figures and its recipe's keys."""


def where(runs: Sequence[FoundRun], conditions: Sequence[str]) -> list[FoundRun]:
    """The runs for which all conditions hold, `predictor.name=none` say or `optim.lr>0.1`.

    A figure is told in per cent, or as a share up to 1. InputError: it is no condition, or no run
    has such a key.
    """
    for condition in conditions:
        found = _CONDITION.fullmatch(condition)
        if found is None:
            raise InputError(
                f"--where takes KEY=VALUE, and not {condition!r}",
                "Or !=, <, <=, >, >= in place of =.",
            )
        key, how = found["key"].strip(), found["how"]
        _refuse_unknown(runs, key)
        runs = [run for run in runs if _holds(run, key, how, found["value"].strip())]
    return list(runs)


def sort(runs: Sequence[FoundRun], key: str) -> list[FoundRun]:
    """By a field or a key of the recipe, growing; by a figure the best first; None comes last."""
    _refuse_unknown(runs, key)
    known = [(run.value(key), run) for run in runs]
    numbers = all(finite(value) is not None for value, _ in known if value is not None)
    best_first = any(run.figure(key) for run in runs) and not any(key in run.keys for run in runs)

    def place(pair: tuple[Any, FoundRun]) -> tuple[Any, ...]:
        value = pair[0]
        if value is None:
            return 1, 0
        return 0, (-value if best_first else value) if numbers else str(value)

    return [run for _, run in sorted(known, key=place)]


def best(runs: Sequence[FoundRun], word: str) -> list[dict[str, Any]]:
    """The best complete run by a protocol, for each set of images that runs were measured on.

    Where the same data has figures on validation images, those on test images are left out: no
    test image chooses anything. InputError: no complete run has such a figure.

    Returns:
        `run`, `figure`, `next` (a run, or None), `differs` (key → the best's value, the next's),
        `difference` (of their figures), `runs` (how many there were to choose from) and `left_out`
        (how many have figures on test images).
    """
    groups: dict[tuple[Any, ...], list[tuple[Figure, FoundRun]]] = {}
    for run in runs:
        figure = run.figure(word)
        if run.state == COMPLETE and figure is not None:
            data = json.dumps([v for k, v in run.keys.items() if k.startswith("dataset.")])
            same = figure.protocol, figure.protocol_version, figure.test_images
            key = data, run.measured_on, *same, run.data
            groups.setdefault(key, []).append((figure, run))
    if not groups:
        known = _protocols(runs)
        hint = did_you_mean(word, known, f"There are {', '.join(known)}." if known else None)
        raise InputError(f"no complete run has a figure of {word!r}", hint)
    validated = {key[0] for key in groups if key[1] == "validation"}
    found = []
    for (data, measured_on, *_), group in groups.items():
        if data in validated and measured_on != "validation":
            continue
        group.sort(key=lambda pair: -pair[0].top1)
        (figure, run), *others = group
        second = others[0][1] if others else None
        on_test = [len(g) for k, g in groups.items() if k[:2] == (data, "test")]
        entry = {
            "run": run,
            "figure": figure,
            "next": second,
            "differs": key_table([run, second]) if second else {},
            "difference": difference(run, second, figure.protocol) if second else None,
            "runs": len(group),
            "left_out": sum(on_test) if measured_on == "validation" else 0,
        }
        found.append(entry)
    return found


def differing(runs: Sequence[FoundRun], usual: bool = True) -> list[dict[str, Any]]:
    """Of each run the recipe's keys in which the runs differ, with its values.

    Runs of one preset are compared with each other, and the preset is told where there are
    several. Where another component was chosen its name is told, and its parameters are compared
    among the runs that have it. Keys that decide nothing are left out.

    Args:
        usual: False leaves out a value that more than half of the compared runs have.
    """
    passed = {"preset", "evaluation.protocols", *operational_paths()}
    names = dict.fromkeys(key for run in runs for key in run.keys if key not in passed)
    several = len({run.keys.get("preset") for run in runs if run.keys}) > 1
    seen: dict[tuple[Any, ...], Counter[str]] = {}

    def group(run: FoundRun, key: str) -> tuple[Any, ...]:
        part, _, param = key.partition(".")
        own = part in COMPONENTS and param != "name"
        return key, run.keys.get("preset"), run.keys.get(f"{part}.name") if own else None

    for run in runs:
        for key in names if run.keys else ():
            seen.setdefault(group(run, key), Counter())[repr(run.keys.get(key))] += 1
    found = []
    for run in runs:
        own = {"preset": run.keys.get("preset")} if several and run.keys else {}
        for key in names if run.keys else ():
            counts = seen[group(run, key)]
            common = counts[repr(run.keys.get(key))] > counts.total() / 2
            if len(counts) > 1 and (usual or not common):
                own[key.removesuffix(".name")] = run.keys.get(key, "not set")
        found.append(own)
    return found


def key_table(runs: Sequence[FoundRun]) -> dict[str, list[Any]]:
    """Key → its value in each run, of the keys in which they differ."""
    found = differing(runs)
    keys = dict.fromkeys(key for own in found for key in own)
    return {key: [own.get(key) for own in found] for key in keys}


def compare(runs: Sequence[FoundRun]) -> dict[str, Any]:
    """The runs side by side, each against the first, as plain values.

    InputError: their figures are of other images.
    """
    first, *others = runs
    for other in others:
        if (why := _other_images(first, other)) is not None:
            raise InputError(
                f"{first.folder} and {other.folder} are not compared: {why}",
                "Name runs of the same data. Figures on other data: simsiam-zoo evaluate RUN --data"
                " DATA",
            )
    recorded = [run.recorded() for run in runs]
    metrics, notes = [], []
    for name in dict.fromkeys(name for known in recorded for name in known):
        figures = [known.get(name) for known in recorded]
        if figures[0] is None or sum(each is not None for each in figures) < 2:
            continue
        versions = {each.protocol_version for each in figures if each is not None}
        if len(versions) > 1:
            told = " and ".join(map(str, sorted(versions)))
            notes.append(f"{name} is not compared: its versions are {told}")
            continue
        metrics.append(_metric(name, figures))
    unpaired = [m for m in metrics if any(d and d["n"] is None for d in m["differences"])]
    if unpaired:
        notes.append(
            "not paired by image where a run has no record of which images it got right:"
            " `simsiam-zoo evaluate RUN` makes one"
        )
    if waiting := [str(run.folder) for run in runs if run.state != COMPLETE]:
        notes.append(f"not complete: {', '.join(waiting)}")
    from simsiam_zoo.studies.statistics import holm

    for metric in metrics:
        tested = [d for d in metric["differences"] if d and d["p"] is not None]
        for each, p in zip(tested, holm([d["p"] for d in tested]), strict=True):
            each["holm_p"] = p
    return {
        "runs": [_described(run) for run in runs],
        "keys": key_table(runs),
        "metrics": metrics,
        "notes": notes,
    }


def difference(run: FoundRun, base: FoundRun, protocol: str) -> dict[str, Any] | None:
    """`run`'s figure less `base`'s, as `_difference` has it; None where one has none."""
    own, other = run.recorded().get(protocol), base.recorded().get(protocol)
    return None if own is None or other is None else _difference(own, other)


def _metric(name: str, figures: Sequence[Figure | None]) -> dict[str, Any]:
    base = figures[0]
    assert base is not None
    return {
        "protocol": name,
        "version": base.protocol_version,
        "test_images": base.test_images,
        "measured_on": base.measured_on,
        "top1": [None if each is None else each.top1 for each in figures],
        "differences": [
            None if each is None or n == 0 else _difference(each, base)
            for n, each in enumerate(figures)
        ],
    }


def _difference(own: Figure, base: Figure) -> dict[str, Any]:
    """Paired by image where that is known; else the mean alone is told."""
    from simsiam_zoo.studies.statistics import paired_by_image

    names = ("low", "high", "p", "holm_p", "gained", "lost", "n")
    found: dict[str, Any] = {"mean": own.top1 - base.top1, **dict.fromkeys(names)}
    if own.test is None or own.test != base.test:
        return found
    right, known = own.correct(), base.correct()
    if right is None or known is None or len(right) != len(known):
        return found
    return found | paired_by_image(right, known)


def _other_images(run: FoundRun, other: FoundRun) -> str | None:
    """Why figures of two runs are not of the same images; None where they are, or none are."""
    one, two = run.recorded(), other.recorded()
    if not one or not two or run.data == other.data:
        return None
    tests = {figure.test for known in (one, two) for figure in known.values()}
    if len(tests) == 1 and None not in tests:  # they differ in what they were trained on
        return None
    if run.measured_on != other.measured_on:
        return f"the one is measured on {run.measured_on}, the other on {other.measured_on} images"
    names = [str(each.keys.get("dataset.name")) for each in (run, other)]
    if names[0] != names[1]:
        return f"the data of the one is {names[0]}, of the other {names[1]}"
    return f"they were measured on other images of {names[0]}, by the digests in lock.toml"


def _described(run: FoundRun) -> dict[str, Any]:
    evidence = run.result.get("evidence")
    evidence = evidence if isinstance(evidence, dict) else {}
    seconds = run.result.get("seconds")
    seconds = seconds.values() if isinstance(seconds, dict) else ()
    return {
        "folder": str(run.folder),
        "state": run.state,
        "verdict": run.verdict,
        "reason": run.result.get("reason", run.why),
        "seed": run.keys.get("training.seed"),
        "std_sqrt_d": finite(evidence.get("std_sqrt_d")),
        "effective_rank": finite(evidence.get("effective_rank")),
        "loss": finite(evidence.get("last_loss")),
        "steps": run.result.get("steps"),
        "seconds": math.fsum(finite(each) or 0.0 for each in seconds) or None,
        "identity": run.lock.get("identity"),
    }


def _holds(run: FoundRun, key: str, how: str, text: str) -> bool:
    own = run.value(key)
    value = _literal(text)
    if own is None:
        return how == "!="
    if finite(own) is not None and finite(value) is not None:
        if run.figure(key) and key not in run.keys and 0 < value <= 1:
            value = 100 * value
        return _HOW[how](own, value)
    shown = own if isinstance(own, str) else json.dumps(own)
    return _HOW[how](shown, text if isinstance(value, str) else json.dumps(value))


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip("'\"")


def _refuse_unknown(runs: Sequence[FoundRun], key: str) -> None:
    if not runs or key in FIELDS or any(run.value(key) is not None for run in runs):
        return
    keys = sorted({key for run in runs for key in run.keys})
    words = [*FIELDS, *_protocols(runs)]
    near = [each for each in keys if each.rpartition(".")[2] == key]
    told = f"There are {', '.join(words)} and the keys of the recipes."
    hint = f"Did you mean {' or '.join(near)}?" if near else None
    raise InputError(f"no run has {key!r}", hint or did_you_mean(key, [*words, *keys], told))


def _protocols(runs: Sequence[FoundRun]) -> list[str]:
    """The words by which the runs' figures are asked for."""
    return sorted({name.partition(" (")[0] for run in runs for name in run.figures})
