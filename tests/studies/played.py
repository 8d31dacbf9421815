"""Studies whose jobs are played by a launcher of the tests: nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from simsiam_zoo.studies.launcher import Resources
from simsiam_zoo.studies.plan import StudyJob, StudyPlan, plan_study, write_plan
from simsiam_zoo.studies.results import collect_results
from simsiam_zoo.studies.running import StudyProgress, run_study
from simsiam_zoo.studies.selection import EVERY_ARM, Selection
from simsiam_zoo.studies.study import parse_study

VERDICT = {"base": "learned", "gradient-none": "collapsed"}


def plan_of(*extra: dict, seeds: Sequence[int] = (0, 1)) -> StudyPlan:
    ablation = [{"part": "gradient", "action": "remove", "expect": "collapsed"}, *extra]
    tree = {"base": {"preset": "digits"}, "seeds": list(seeds), "ablation": ablation}
    return plan_study("played", parse_study(tree, "it"), "simsiam-zoo ablate played")


class Played:
    """A launcher whose jobs take some polls, and end as a test says."""

    def __init__(self, ends: Callable[[Path], int] = lambda folder: 0) -> None:
        self.ends, self.most, self.order = ends, 0, list[str]()
        self.left: dict[str, int] = {}
        self.folders: dict[str, Path] = {}
        self.cancelled: list[str] = []
        self.closed = False

    def submit(self, argv: Sequence[str], folder: Path, resources: Resources) -> str:
        assert argv[-1] == str(folder.resolve())
        name = f"job-{len(self.folders)}"
        self.order.append("/".join(folder.parts[-2:]))
        self.folders[name], self.left[name] = folder, 3
        self.most = max(self.most, sum(left > 0 for left in self.left.values()))
        return name

    def poll(self, job: str) -> int | None:
        self.left[job] -= 1
        if job in self.cancelled:
            self.left[job] = 0
            return 75
        return None if self.left[job] > 0 else self._end(self.folders[job])

    def cancel(self, job: str) -> None:
        self.cancelled.append(job)

    def close(self) -> None:
        self.closed = True

    def _end(self, folder: Path) -> int:
        code = self.ends(folder)
        if code in (0, 5):
            complete(folder, code)
        return code


def complete(folder: Path, code: int = 0) -> None:
    """What a job leaves behind that came to its end."""
    (folder / "run").mkdir(exist_ok=True)
    arm, seed = folder.parent.name.rpartition("-")[0], int(folder.name.removeprefix("seed"))
    figure = {"network": "trained network", "protocol": "knn", "protocol_version": 2}
    figure |= {"top1": 0.9 - 0.1 * seed - 0.3 * (arm != "base"), "test_images": 100}
    result = {
        "verdict": "diverged" if code else VERDICT.get(arm, "no-gain"),
        "reason": "as played",
        "figures": [] if code else [figure],
        "evidence": {"std_sqrt_d": 1.0, "effective_rank": 9.0, "last_loss": -0.9},
        "identity": "played",
        "steps": 1,
        "seconds": {"training": 1.0},
    }
    (folder / "run" / "result.json").write_text(json.dumps(result))
    (folder / "status.json").write_text(json.dumps({"exit_code": code, "error": None}))


def run_selected(
    plan: StudyPlan, folder: Path, launcher: Played, selection: Selection
) -> list[tuple[StudyJob, int]]:
    return run_study(
        plan,
        folder,
        launcher,
        jobs=2,
        resources=Resources(),
        progress=StudyProgress(None),
        selection=selection,
    )


def run(plan: StudyPlan, folder: Path, launcher: Played) -> list[tuple[StudyJob, int]]:
    return run_selected(plan, folder, launcher, EVERY_ARM)


def states(folder: Path) -> dict[str, list[str]]:
    return {
        arm["name"]: [each["state"] for each in arm["runs"]]
        for arm in collect_results(folder)["arms"]
    }


def only_job(plan: StudyPlan, folder: Path) -> Path:
    write_plan(plan, folder)
    return next(iter(plan.jobs(folder))).folder
