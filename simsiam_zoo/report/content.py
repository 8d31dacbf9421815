"""What the report of a study says, in all formats: a few sentences, and two tables."""

from __future__ import annotations

from typing import Any

from simsiam_zoo.metrics import short_names
from simsiam_zoo.report.how_sure import differences, sure_table
from simsiam_zoo.report.pages import (
    MISSING,
    NARROW,
    Cell,
    Column,
    Table,
    count,
    fixed,
    listing,
    number,
    percent,
    plus_minus,
    points,
    quoted,
)
from simsiam_zoo.report.study import (
    DONE,
    FAILED,
    RUNNING,
    ArmRun,
    ReportArm,
    SeedMean,
    StudyView,
)
from simsiam_zoo.report.tuned import candidate_table, tuned
from simsiam_zoo.runtime.progress import duration

_SURVIVORS = (
    "the figures are of the seeds that did not diverge alone, so that they make it look better"
)
STD_TITLE = f"std{NARROW}×{NARROW}√d"  # in one piece: a column of figures is narrow


def content(study: StudyView) -> dict[str, Any]:
    """What the page and the Markdown have in common, by the names of their templates."""
    columns, rows = arm_table(study)
    run_columns, runs = run_table(study)
    seconds = [run.seconds for _, run in study.runs if run.seconds is not None]
    return {
        "study": study,
        "progress": progress(study),
        "answer": answer(study),
        "notes": notes(study),
        "candidates": candidate_table(study),
        "columns": columns,
        "table_rows": rows,
        "metric_table": metric_table(study),
        "folded": ", ".join([*list(short_names(study.metrics).values())[1:], STD_TITLE]),
        "sure": [(m, *table) for m in study.metrics if (table := sure_table(study, m))[1]],
        "run_columns": run_columns,
        "runs": runs,
        "differing": [arm for arm in study.arms if arm.differences],
        "failed": [(arm, run) for arm, run in study.runs if run.error],
        "not_run": not_run(study),
        "time": duration(sum(seconds)) if seconds else "",
    }


def answer(study: StudyView) -> list[str]:
    """Sentences about expectations, collapsed arms, the base and the differences from it."""
    told = [*_expectations(study), *_fallen(study)]
    failed = [quoted(a.label) for a in study.arms if FAILED in a.states]
    if failed:
        told.append(f"Failed: {listing(failed)}; the log's end stands below.")
    if study.main is not None:
        told += [*base_figure(study), *differences(study, study.main)]
    return [*told, *tuned(study)]


def progress(study: StudyView) -> str | None:
    """What is not done yet; None if every run has ended."""
    states = [run.state for _, run in study.runs]
    if all(state in (DONE, FAILED) for state in states):
        return None
    done = states.count(DONE)
    text = (
        f"Not complete: {done} of {count(len(states), 'run')} {'is' if done == 1 else 'are'} done"
    )
    if RUNNING in states:
        text += ", and the figures will change"
    others = {state: states.count(state) for state in dict.fromkeys(states) if state != DONE}
    return f"{text} ({', '.join(f'{n} {state}' for state, n in others.items())})."


def notes(study: StudyView) -> list[tuple[str, str]]:
    """(the labels of the arms that it is about, or nothing; note), each note once."""
    arms: dict[str, list[str]] = {}
    for arm in study.arms:
        for warning in dict.fromkeys(arm.warnings):
            arms.setdefault(warning, []).append(arm.label)
        if 0 < arm.verdicts.get("diverged", 0) < arm.done:
            arms.setdefault(_SURVIVORS, []).append(arm.label)
    of_arms = {f"{label}: {warning}" for warning, labels in arms.items() for label in labels}
    told = [("", note) for note in dict.fromkeys(study.notes) if note not in of_arms]
    grouped = [(listing([quoted(each) for each in labels]), w) for w, labels in arms.items()]
    return told + grouped


def failures(study: StudyView) -> list[tuple[str, str]]:
    """(failed runs, the first line of their error), each error once."""
    found: dict[str, dict[str, list[str]]] = {}
    for arm, run in study.runs:
        if run.error:
            seeds = found.setdefault(run.error.splitlines()[0], {})
            seeds.setdefault(quoted(arm.label), []).append(str(run.seed))
    return [(_which(arms, len(study.arms)), error) for error, arms in found.items()]


def not_run(study: StudyView) -> list[tuple[str, str]]:
    """(runs that were not run, why), each reason once; without failed runs."""
    labels = {arm.name: arm.label for arm in study.arms}
    failed = {(arm.name, run.seed) for arm, run in study.runs if run.error}
    found: dict[str, dict[str, list[str]]] = {}
    for each in study.not_run:
        arm, seed = each["arm"], each["seed"]
        if (arm, seed) not in failed:
            seeds = found.setdefault(each["why"], {}).setdefault(quoted(labels[arm]), [])
            seeds += [] if seed is None else [str(seed)]
    return [(_which(arms, len(labels)), why) for why, arms in found.items()]


def _which(arms: dict[str, list[str]], every: int) -> str:
    """`“base” seeds 1 and 2`, or of all arms `every arm, seeds 1 and 2`."""
    told = {
        name: f"seed{'s' * (len(seeds) > 1)} {listing(seeds)}" if seeds else ""
        for name, seeds in arms.items()
    }
    if len(arms) == every > 1 and len({*told.values()}) == 1:
        return ", ".join(filter(None, ["every arm", *{*told.values()}]))
    return ", ".join(f"{name} {seeds}".rstrip() for name, seeds in told.items())


def _expectations(study: StudyView) -> list[str]:
    stated = [arm for arm in study.arms if arm.expect]
    if not stated:
        return []
    outcomes = [arm.as_expected for arm in stated]
    met, open_ = outcomes.count(True), outcomes.count(None)
    text = f"Of {count(len(stated), 'arm')} with an expectation, {met} came out as expected"
    missed = [
        f"{quoted(arm.label)} (expected {' or '.join(arm.expect or ())}, found {arm.verdict})"
        for arm in stated
        if arm.as_expected is False
    ]
    if missed:
        text += f" and {len(missed)} did not: {listing(missed)}"
    if open_:
        text += f"; {open_} {'has' if open_ == 1 else 'have'} no verdict yet"
    return [f"{text}."]


def _fallen(study: StudyView) -> list[str]:
    told = []
    for verdict in ("collapsed", "diverged"):
        fallen = [_case(arm, verdict) for arm in study.arms if verdict in arm.verdicts]
        if fallen:
            told.append(f"{verdict.capitalize()}: {listing(fallen)}.")
    if not told and any(arm.verdicts for arm in study.arms):
        told.append("No arm collapsed or diverged.")
    return told


def _case(arm: ReportArm, verdict: str) -> str:
    runs, total = arm.verdicts[verdict], sum(arm.verdicts.values())
    name = quoted(arm.label)
    return name if runs == total else f"{name} ({runs} of {count(total, 'seed')})"


def base_figure(study: StudyView) -> list[str]:
    """A sentence: the base's main metric, beside that of networks that were not trained."""
    base, main = study.base, study.main
    figure = None if base is None or main is None else base.metrics.get(main)
    if base is None or main is None or figure is None:
        return []
    others = [f"{name} {percent(share)}" for name, share in base.baselines(main).items()]
    untrained = f" (without training: {listing(others)})" if others else ""
    return [f"The base has {main} {percent(figure.mean, figure.std)}{untrained}."]


def arm_table(study: StudyView) -> Table:
    """A row for each arm, with the main metric."""
    columns = [
        Column("Arm", number=False),
        Column("Verdict", number=False),
        *(column for metric in study.metrics[:1] for column in _metric_columns(study, metric)),
        Column("Effective rank", note="of z"),
        Column("Paper, %"),
        Column("Seeds", note="done"),
    ]
    return columns, [_arm_row(study, arm) for arm in study.arms]


def metric_table(study: StudyView) -> Table:
    """A row for each arm, with the other metrics and the std."""
    others = study.metrics[1:]
    columns = [column for metric in others for column in _metric_columns(study, metric)]
    columns.append(Column(STD_TITLE, note="of z/|z|"))
    rows = [
        [
            Cell(arm.label, sort=arm.label),
            *(cell for metric in others for cell in _metric_cells(arm, metric)),
            _figure(arm.std_sqrt_d, 2, arm),
        ]
        for arm in study.arms
    ]
    return [Column("Arm", number=False), *columns], rows


def arm_columns(study: StudyView) -> dict[str, list[str]]:
    """Both tables as text: head → cells; the main metric alone has differences.

    Columns in which nothing is known are left out.
    """
    names = short_names(study.metrics)
    columns: dict[str, list[str]] = {}
    for heads, rows in (arm_table(study), metric_table(study)):
        for head, cells in zip(heads, zip(*rows, strict=True), strict=True):
            texts = [cell.text for cell in cells]
            if head.title == "From base" and head.group == study.main:
                # of one seed there is no interval, and a note below says so
                texts = [f"{c.text} ({c.note})" if " to " in c.note else c.text for c in cells]
                columns[head.title] = texts
            elif head.title == "Verdict":
                # ✗: another one was expected
                texts = [c.text + " ✗" * c.note.startswith("✗") for c in cells]
                columns[head.title] = texts
            elif head.title not in ("From base", STD_TITLE):
                columns[f"{names[head.group]}, %" if head.group else head.title] = texts
    always = ("Arm", "Verdict")
    return {h: cells for h, cells in columns.items() if h in always or {*cells} != {MISSING}}


def run_table(study: StudyView) -> Table:
    """A row for each run."""
    columns = [
        Column("Arm", number=False),
        Column("Seed"),
        Column("State", number=False),
        *(Column(f"{metric}, %") for metric in study.metrics),
        Column("Loss"),
        Column(STD_TITLE),
        Column("Effective rank"),
        Column("Verdict and evidence", number=False),
        Column("Steps"),
        Column("Time"),
    ]
    return columns, [_run_row(study, arm, run) for arm, run in study.runs]


def _measured(study: StudyView, metric: str) -> str:
    """`version 2, 1,000 test images`."""
    found = [run.metrics[metric] for _, run in study.runs if metric in run.metrics]
    if not found:
        return ""
    versions = sorted({each.version for each in found})
    images = sorted({(each.test_images, each.measured_on) for each in found})
    counts = " or ".join(f"{number:,} {what}" for number, what in images)
    version = " and ".join(map(str, versions))
    return f"version {version}, {counts} images"


def _arm_row(study: StudyView, arm: ReportArm) -> list[Cell]:
    return [
        Cell(arm.label, "the base" if arm.is_base else arm.substituted, sort=arm.label),
        _verdict(arm),
        *(cell for metric in study.metrics[:1] for cell in _metric_cells(arm, metric)),
        _figure(arm.effective_rank, 1, arm),
        Cell() if arm.paper is None else Cell(f"{arm.paper:g}", sort=arm.paper),
        _seeds(arm),
    ]


def _metric_columns(study: StudyView, metric: str) -> list[Column]:
    note = _measured(study, metric)
    return [Column("Top‑1, %", metric, note), Column("From base", metric, note)]


def _metric_cells(arm: ReportArm, metric: str) -> list[Cell]:
    return [_figure(arm.metrics.get(metric), 1, arm, scale=100), _difference(arm, metric)]


def _seeds(arm: ReportArm) -> Cell:
    if not arm.shown_runs:
        return Cell(note="not run")
    others = [f"{n} {state}" for state, n in arm.states.items() if state != DONE]
    note = f"same as {arm.same_as}" if arm.same_as else ", ".join(others)
    return Cell(f"{arm.done} of {arm.asked}", note, arm.done)


def _figure(figure: SeedMean | None, digits: int, arm: ReportArm, scale: float = 1.0) -> Cell:
    if figure is None:
        return Cell()
    note = count(figure.n, "seed") if figure.n < arm.done else ""
    return Cell(plus_minus(figure.mean, figure.std, digits, scale), note, figure.mean)


def _difference(arm: ReportArm, metric: str) -> Cell:
    found = arm.difference.get(metric)
    if found is None:
        return Cell()
    note = count(found.n, "seed")
    if found.low is not None and found.high is not None:
        note = f"{points(found.low)} to {points(found.high)}"
    return Cell(points(found.mean), note, found.mean)


def _verdict(arm: ReportArm) -> Cell:
    """The verdict, and below it whether it is the one that was expected."""
    sign = {None: "", True: "✓ ", False: "✗ "}[arm.as_expected]
    note = f"{sign}expected {' or '.join(arm.expect)}" if arm.expect else ""
    if arm.as_expected:
        note = "✓ as expected"
    return Cell(arm.verdict or MISSING, note, arm.verdict or None, arm.mark)


def _run_row(study: StudyView, arm: ReportArm, run: ArmRun) -> list[Cell]:
    row = [Cell(arm.label), Cell(str(run.seed))]
    row.append(Cell(run.state, f"exit code {run.exit_code}" if run.exit_code else ""))
    for metric in study.metrics:
        found = run.metrics.get(metric)
        ends = [] if found is None or found.interval is None else found.interval
        note = " to ".join(fixed(100 * end, 1) for end in ends)
        row.append(number(None if found is None else found.top1, 1, 100, note))
    return [
        *row,
        number(run.loss, 3),
        number(run.std_sqrt_d, 2),
        number(run.effective_rank, 1),
        Cell(run.verdict or MISSING, run.reason or "", verdict=run.verdict),
        Cell() if run.steps is None else Cell(f"{run.steps:,}"),
        Cell() if run.seconds is None else Cell(duration(run.seconds)),
    ]
