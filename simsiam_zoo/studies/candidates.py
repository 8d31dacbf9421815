"""What an arm's candidates measured, and which of them go on.

With halving, all candidates of an arm come to a first rung, an epoch of their runs; the better half
of them, by the validation metric there, goes on from its checkpoints to the next (Jamieson &
Talwalkar 2016, arXiv:1502.07943). All is read from the runs' folders, so that a study which is
given again finds the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from simsiam_zoo.errors import DataError
from simsiam_zoo.metrics import TOP1, finite, read_rows
from simsiam_zoo.studies.arms import StudyArm
from simsiam_zoo.studies.job import is_complete, read_run_result
from simsiam_zoo.studies.plan import StudyJob, StudyPlan, job_folder
from simsiam_zoo.studies.study import Tune


def rounds(plan: StudyPlan, folder: Path, names: Collection[str]) -> Iterator[list[StudyJob]]:
    """The runs that choose for the arms of these names, a rung of all of them at a time.

    The next round depends on what the last one measured: ask for it when that has ended.
    """
    if plan.tune is None:
        return
    races = [race(folder, arm, plan.tune) for arm in plan.own_arms() if arm.name in names]
    for at_once in itertools.zip_longest(*races, fillvalue=(0, ())):
        yield [
            StudyJob(each, seed, job_folder(folder, each.key, seed), until=rung)
            for seed in plan.tune.seeds
            for rung, candidates in at_once
            for each in candidates
        ]


def race(folder: Path, arm: StudyArm, tune: Tune) -> Iterator[tuple[int, list[StudyArm]]]:
    """Each rung of an arm with the candidates that run to it; last 0, the end of the run."""
    left = arm.candidates
    for rung in tune.rungs(left[0].recipe.training.epochs) if left else ():
        yield rung, left
        means = [mean_at(folder, each, tune, rung) for each in left]
        known = [-1.0 if mean is None else mean for mean in means]
        better = sorted(range(len(left)), key=lambda i: -known[i])[: -(-len(left) // 2)]
        left = [left[i] for i in sorted(better)]
    yield 0, left


def all_ended(folder: Path, arm: StudyArm, tune: Tune) -> bool:
    """Whether the candidates of an arm are complete, but for those that halving stopped."""
    for rung, left in race(folder, arm, tune):
        jobs = (job_folder(folder, each.key, seed) for each in left for seed in tune.seeds)
        if not all(has_reached(job, rung) for job in jobs):
            return False
    return True


def has_reached(folder: Path, rung: int) -> bool:
    """Whether a job's run is complete, or has its figure of a rung."""
    return is_complete(folder, ()) or rung in figures(folder)


def candidate_means(folder: Path, arm: StudyArm, tune: Tune) -> list[float | None]:
    """The mean top-1 of each candidate over the seeds; None where one of them has none."""
    return [mean_at(folder, each, tune, 0) for each in arm.candidates]


def mean_at(folder: Path, candidate: StudyArm, tune: Tune, rung: int) -> float | None:
    """A candidate's mean top-1 at a rung; 0, or where it ended before: of its end."""
    found = []
    for seed in tune.seeds:
        job = job_folder(folder, candidate.key, seed)
        share = figures(job).get(rung)
        found.append(measured(job) if share is None else share)
    values = [value for value in found if value is not None]
    return math.fsum(values) / len(values) if len(values) == len(found) else None


def measured(folder: Path) -> float | None:
    """The validation figure of a run; None where it has none, or diverged."""
    with suppress(DataError):
        result = read_run_result(folder)
        if result is not None and result.verdict != "diverged":
            for score in result.figures:
                if score.network == "trained network":
                    return score.top1
    return None


def figures(folder: Path) -> dict[int, float]:
    """What a job's run measured on the way: epoch → share of validation images that was right."""
    return {
        int(row["epoch"]): share
        for row in read_rows(folder / "run" / "metrics.jsonl")
        for column in TOP1.columns([row])[:1]
        if (share := finite(row[column])) is not None
    }


def stopped_at(folder: Path, candidate: StudyArm, tune: Tune) -> tuple[int, float] | None:
    """Where a candidate stopped that halving left out: its last epoch, and its mean there."""
    jobs = [job_folder(folder, candidate.key, seed) for seed in tune.seeds]
    last = {max(figures(job), default=0) for job in jobs}
    if not tune.halving or len(last) > 1 or 0 in last or any(is_complete(j, ()) for j in jobs):
        return None
    rung = last.pop()
    mean = mean_at(folder, candidate, tune, rung)
    return None if mean is None else (rung, mean)
