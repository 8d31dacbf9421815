"""What a study found, in a few sentences that state its figures only."""

from __future__ import annotations

from simsiam_zoo.report.study import DONE, FAILED, RUNNING, ReportArm, StudyView
from simsiam_zoo.report.text import (
    NARROW,
    between,
    count,
    listing,
    percent,
    plus_minus,
    points,
    quoted,
)

_BAD = ("collapsed", "diverged")


def answer(study: StudyView) -> list[str]:
    """Sentences about expectations, collapsed arms, the base and the differences from it."""
    told = [_expectations(study), *_fallen(study), *_failed(study), _base(study)]
    told += _differences(study)
    return [sentence for sentence in told if sentence]


def progress(study: StudyView) -> str | None:
    """What is not done yet; None if every run has ended."""
    states = [run.state for _, run in study.runs]
    done, running = states.count(DONE), states.count(RUNNING)
    if all(state in (DONE, FAILED) for state in states):
        return None
    verb = "is" if done == 1 else "are"
    text = f"Not complete: {done} of {count(len(states), 'run')} {verb} done"
    others = {state: states.count(state) for state in dict.fromkeys(states) if state != DONE}
    if running:
        text += ", and the figures will change"
    return f"{text} ({', '.join(f'{n} {state}' for state, n in others.items())})."


def warnings(study: StudyView) -> list[tuple[str, list[str]]]:
    """Each warning once, with the labels of the arms that it is about."""
    found: dict[str, list[str]] = {}
    for arm in study.arms:
        for warning in dict.fromkeys(arm.warnings):
            found.setdefault(warning, []).append(arm.label)
    return list(found.items())


def not_run(study: StudyView) -> list[tuple[str, list[str]]]:
    """Each reason once, with the runs that were not run for it; without failed runs."""
    labels = {arm.name: arm.label for arm in study.arms}
    failed = {(arm.name, run.seed) for arm, run in study.runs if run.error}
    found: dict[str, list[str]] = {}
    for each in study.not_run:
        if (each.arm, each.seed) not in failed:
            name = quoted(labels.get(each.arm, each.arm))
            told = name if each.seed is None else f"{name} seed {each.seed}"
            found.setdefault(each.why, []).append(told)
    return list(found.items())


def notes(study: StudyView) -> list[str]:
    """The study's notes without the arms' `warnings`. A study of one seed says so."""
    of_arms = {f"{arm.label}: {warning}" for arm in study.arms for warning in arm.warnings}
    found = [note for note in dict.fromkeys(study.notes) if note not in of_arms]
    told = any("one seed" in note.lower() for note in found)
    if len(study.seeds) == 1 and not told:
        found.insert(0, f"One seed ({study.seeds[0]}): no interval over seeds can be given.")
    return found


def _expectations(study: StudyView) -> str:
    stated = [arm for arm in study.arms if arm.expect]
    if not stated:
        return ""
    met = [arm for arm in stated if arm.as_expected is True]
    missed = [arm for arm in stated if arm.as_expected is False]
    open_ = len(stated) - len(met) - len(missed)
    text = f"Of {count(len(stated), 'arm')} with an expectation, {len(met)} came out as expected"
    if missed:
        cases = [_missed(arm) for arm in missed]
        text += f" and {len(missed)} did not: {listing(cases)}"
    if open_:
        text += f"; {open_} {'has' if open_ == 1 else 'have'} no verdict yet"
    return text + "."


def _missed(arm: ReportArm) -> str:
    found = verdict_text(arm) or "no verdict"
    return f"{quoted(arm.label)} (expected {' or '.join(arm.expect)}, found {found})"


def _fallen(study: StudyView) -> list[str]:
    told = []
    for verdict in _BAD:
        fallen = [arm for arm in study.arms if arm.verdicts.get(verdict)]
        if fallen:
            told.append(f"{verdict.capitalize()}: {listing([_case(a, verdict) for a in fallen])}.")
    judged = any(arm.verdicts for arm in study.arms)
    if judged and not told:
        told.append("No arm collapsed or diverged.")
    return told


def _case(arm: ReportArm, verdict: str) -> str:
    runs, total = arm.verdicts[verdict], sum(arm.verdicts.values())
    name = quoted(arm.label)
    return name if runs == total else f"{name} ({runs} of {count(total, 'seed')})"


def _failed(study: StudyView) -> list[str]:
    failed = [quoted(a.label) for a in study.arms if any(run.state == FAILED for run in a.runs)]
    return [f"Failed: {listing(failed)}; the log's end stands below."] if failed else []


def _base(study: StudyView) -> str:
    base, main = study.base, study.main
    if base is None or main is None or main not in base.metrics:
        return ""
    figure = base.metrics[main]
    text = f"The base has {main} {plus_minus(figure.mean, figure.std, 1, 100)}{NARROW}%"
    others = [f"{name} {percent(share)}" for name, share in baselines(base, main).items()]
    if others:
        text += f" (without training: {listing(others)})"
    return text + "."


def _differences(study: StudyView) -> list[str]:
    main = study.main
    if main is None:
        return []
    apart, open_ = [], []
    for arm in study.arms:
        found = arm.difference.get(main)
        if found is None or found.low is None or found.high is None:
            continue
        if found.low > 0 or found.high < 0:
            interval = between(found.low, found.high)
            apart.append(f"{quoted(arm.label)} ({points(found.mean)} points, {interval})")
        else:
            open_.append(quoted(arm.label))
    told = []
    if apart:
        told.append(
            f"Different from the base (95 % interval over seeds without 0): {listing(apart, 6)}."
        )
    if open_:
        told.append(f"Not told apart from the base by these seeds: {listing(open_, 6)}.")
    return told


def baselines(arm: ReportArm, metric: str) -> dict[str, float]:
    """Mean top-1 over seeds of each network that was not trained."""
    shares: dict[str, list[float]] = {}
    for run in arm.shown_runs:
        for network, by_metric in run.baselines.items():
            if metric in by_metric:
                shares.setdefault(network, []).append(by_metric[metric])
    return {network: sum(each) / len(each) for network, each in shares.items()}


def verdict_text(arm: ReportArm) -> str:
    """The arm's verdict. If its seeds differ: how many have which."""
    if len(arm.verdicts) > 1:
        return ", ".join(f"{n} {verdict}" for verdict, n in arm.verdicts.items())
    return arm.verdict or next(iter(arm.verdicts), "")
