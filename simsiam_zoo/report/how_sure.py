"""How sure the differences from the base are, in sentences, in a table and in one line."""

from __future__ import annotations

from simsiam_zoo.report.pages import (
    Cell,
    Column,
    Table,
    count,
    fixed,
    listing,
    points,
    quoted,
)
from simsiam_zoo.report.study import Difference, ReportArm, StudyView
from simsiam_zoo.studies.statistics import ALPHA, POINTS, POWER


def differences(study: StudyView, main: str) -> list[str]:
    """Sentences: which arms differ from the base, and what those that may not could cost."""
    kinds: dict[str, list[str]] = {}
    for arm, found in _compared(study, main):
        kind, told = "open", _bound(found)
        if found.n == 1 or found.p is None:
            kind, told = "single" if found.n == 1 else "same", f"{points(found.mean)} points"
        elif found.p < ALPHA:
            kind = "apart" if _differs(found) else "alone"
            told = f"{points(found.mean)} points, {_interval(found)}"
        kinds.setdefault(kind, []).append(f"{quoted(arm.label)} ({told})")
    corrected = f"Holm's correction over {count(_arms(study, main), 'arm')}"
    sentences = {
        "apart": f"Different from the base (paired t-test over seeds, {corrected}; 95 % interval)",
        "alone": f"Different by their own 95 % interval, but not with {corrected}",
        "open": "Not told apart from the base by these seeds, with what they may cost by the"
        " 95 % interval",
        "single": "From the base, with one seed, so that nothing says how sure it is",
        "same": "The same difference with every seed, so that no spread shows how sure it is",
    }
    return [
        f"{text}: {listing(kinds[kind], 12 if kind == 'single' else 6)}."
        for kind, text in sentences.items()
        if kind in kinds
    ]


def sure_table(study: StudyView, metric: str) -> Table:
    """A row for each arm that has several seeds beside the base's."""
    columns = [
        Column("Arm", number=False),
        Column("From base"),
        Column("p"),
        Column("Told from the base", number=False),
        Column("Can tell"),
        *(Column(f"Seeds for {count(each, 'point')}") for each in POINTS),
    ]
    return columns, [
        _row(arm, found) for arm, found in _compared(study, metric) if found.p is not None
    ]


def in_one_line(study: StudyView) -> str | None:
    """How many arms differ, and how large a difference must be to be told, by the main metric.

    None where nothing can be compared.
    """
    if study.main is None:
        return None
    compared = [found for _, found in _compared(study, study.main)]
    tested = [found for found in compared if found.p is not None]
    if not tested:
        single = compared and all(found.n == 1 for found in compared)
        return "One seed: nothing says how sure a difference from the base is" if single else None
    sizes = [f"{100 * found.detectable:.1f}" for found in tested if found.detectable is not None]
    ends = dict.fromkeys([min(sizes, key=float), max(sizes, key=float)])
    differ = sum(map(_differs, tested))
    verb = "differs" if 1 in (differ, len(tested)) else "differ"
    return (
        f"How sure: {differ} of {count(len(tested), 'arm')} {verb} (Holm);"
        f" told at {100 * POWER:.0f} % power: {' to '.join(ends)} points"
    )


def _compared(study: StudyView, metric: str) -> list[tuple[ReportArm, Difference]]:
    pairs = ((arm, arm.difference.get(metric)) for arm in study.arms if arm.same_as is None)
    return [(arm, found) for arm, found in pairs if found is not None]


def _arms(study: StudyView, metric: str) -> int:
    return max((found.holm_arms or 0 for _, found in _compared(study, metric)), default=0)


def _differs(found: Difference) -> bool:
    return found.holm_p is not None and found.holm_p < ALPHA


def _interval(found: Difference) -> str:
    return f"{points(found.low or 0.0)} to {points(found.high or 0.0)}"


def _bound(found: Difference) -> str:
    """What an arm costs at most; its interval holds 0."""
    return f"costs at most {fixed(-100 * (found.low or 0.0), 1)} points"


def _row(arm: ReportArm, found: Difference) -> list[Cell]:
    told, note = "no", f"{_bound(found)}, by the 95 % interval"
    if _differs(found):
        told, note = "yes", ""
    elif found.p is not None and found.p < ALPHA:
        note = "by its own interval it is; not with Holm's correction"
    needed = found.seeds_for or {}
    return [
        Cell(arm.label),
        Cell(points(found.mean), _interval(found)),
        Cell(p_text(found.holm_p), f"alone {p_text(found.p)}"),
        Cell(told, note),
        Cell(fixed(100 * (found.detectable or 0.0), 1), count(found.n, "seed")),
        *(Cell(f"{needed[str(each)]:,}") if str(each) in needed else Cell() for each in POINTS),
    ]


def p_text(value: float | None) -> str:
    """A p-value to three places; empty where there is none."""
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
