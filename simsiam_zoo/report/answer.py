"""What a study found, in a few sentences that state its figures only."""

from __future__ import annotations

from simsiam_zoo.report.study import DONE, FAILED, RUNNING, ReportArm, StudyView
from simsiam_zoo.report.text import count, listing, percent, points, quoted


def answer(study: StudyView) -> list[str]:
    """Sentences about expectations, collapsed arms, the base and the differences from it."""
    told = [*_expectations(study), *_fallen(study)]
    failed = [quoted(a.label) for a in study.arms if FAILED in a.states]
    if failed:
        told.append(f"Failed: {listing(failed)}; the log's end stands below.")
    if study.main is not None:
        told += [*_base(study, study.main), *_differences(study, study.main)]
    return told


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
    of_arms = {f"{label}: {warning}" for warning, labels in arms.items() for label in labels}
    told = [("", note) for note in dict.fromkeys(study.notes) if note not in of_arms]
    grouped = [(listing([quoted(each) for each in labels]), w) for w, labels in arms.items()]
    return told + grouped


def not_run(study: StudyView) -> list[tuple[str, str]]:
    """(runs that were not run, why), each reason once; without failed runs."""
    labels = {arm.name: arm.label for arm in study.arms}
    failed = {(arm.name, run.seed) for arm, run in study.runs if run.error}
    found: dict[str, list[str]] = {}
    for each in study.not_run:
        arm, seed = each["arm"], each["seed"]
        if (arm, seed) not in failed:
            name = quoted(labels[arm])
            told = name if seed is None else f"{name} seed {seed}"
            found.setdefault(each["why"], []).append(told)
    return [(", ".join(runs), why) for why, runs in found.items()]


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


def _base(study: StudyView, main: str) -> list[str]:
    base = study.base
    figure = None if base is None else base.metrics.get(main)
    if base is None or figure is None:
        return []
    others = [f"{name} {percent(share)}" for name, share in base.baselines(main).items()]
    untrained = f" (without training: {listing(others)})" if others else ""
    return [f"The base has {main} {percent(figure.mean, figure.std)}{untrained}."]


def _differences(study: StudyView, main: str) -> list[str]:
    apart, open_ = [], []
    for arm in study.arms:
        found = arm.difference.get(main)
        if found is None or found.low is None or found.high is None:
            continue
        if found.low > 0 or found.high < 0:
            interval = f"{points(found.low)} to {points(found.high)}"
            apart.append(f"{quoted(arm.label)} ({points(found.mean)} points, {interval})")
        else:
            open_.append(quoted(arm.label))
    told = []
    if apart:
        interval = "95 % interval over seeds without 0"
        told.append(f"Different from the base ({interval}): {listing(apart, 6)}.")
    if open_:
        told.append(f"Not told apart from the base by these seeds: {listing(open_, 6)}.")
    return told
