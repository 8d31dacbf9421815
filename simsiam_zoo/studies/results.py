"""A study's results, gathered from its folder alone: `results.json` (format 1).

Nothing here asks the catalogue or trains; it works while arms still run, and on another machine.
What docs/studies.md calls the columns is made here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from simsiam_zoo.errors import DataError, StoppedError, ZooError
from simsiam_zoo.recipe.lock import read_lock
from simsiam_zoo.runtime.folders import save_text
from simsiam_zoo.studies.arms import StudyArm
from simsiam_zoo.studies.job import RunResult, is_held, job_status, read_measured, read_run_result
from simsiam_zoo.studies.plan import StudyPlan, job_folder, read_plan
from simsiam_zoo.studies.statistics import correct, mean_std, paired_difference
from simsiam_zoo.studies.tuning import at_edge, candidate_means, stopped_at

RESULTS = "results.json"

ResultRow = dict[str, Any]

_WHY = {
    "running": "it is running",
    "waiting": "it has not begun",
    "stopped": "it was stopped; the same command goes on with it",
}


def collect_results(folder: Path) -> ResultRow:
    """The results of the study in `folder`, as plain values. Raises as `read_plan` does."""
    plan = read_plan(folder)
    arms: list[ResultRow] = []
    for planned in plan.arms:
        own = planned.same_as is None and planned.not_run is None
        arm = planned.model_dump(mode="json", exclude={"not_run", "key", "steps", "candidates"})
        arm |= _candidates(folder, plan, planned)
        arm["runs"] = [_run(folder, planned.key, seed) for seed in plan.seeds] if own else []
        arms.append(arm)
    by_name = {arm["name"]: arm for arm in arms}
    for arm in arms:
        # An arm that equals another one has that one's figures.
        runs = by_name[arm["same_as"]]["runs"] if arm["same_as"] else arm["runs"]
        arm["summary"] = _summary(arm, runs, arms[0]["runs"], len(plan.seeds))
    correct([arm["summary"]["difference"] for arm in arms if arm["same_as"] is None])
    for arm in arms:
        if arm["same_as"]:
            arm["summary"]["difference"] = by_name[arm["same_as"]]["summary"]["difference"]
    provenance = _provenance(folder, arms)
    return {
        **plan.model_dump(mode="json", exclude={"arms", "command"}),
        "arms": arms,
        "stale": _stale(folder, {a.key for arm in plan.arms for a in (arm, *arm.candidates)}),
        "not_run": list(_not_run(plan, arms)),
        "notes": list(_notes(plan, arms, provenance["machine"].get("threads"))),
        "provenance": {"command": plan.command or None, **provenance},
    }


def write_results(results: ResultRow, folder: Path) -> None:
    """Write `results.json`. InputError: it cannot be written."""
    save_text(folder / RESULTS, json.dumps(results, indent=1) + "\n")


def _candidates(folder: Path, plan: StudyPlan, arm: StudyArm) -> ResultRow:
    """What was tried for an arm, and whether what was chosen is an edge of it."""
    if plan.tune is None:
        return {"candidates": [], "at_edge": []}
    means = candidate_means(folder, arm, plan.tune)
    tried = [each.substitution for each in arm.candidates]
    return {
        "candidates": [
            {
                "values": each.substitution,
                "top1": mean,
                # Before one has come to its end, others may still go on.
                "stopped": stopped_at(folder, each, plan.tune) if any(means) else None,
                "runs": [_run(folder, each.key, seed) for seed in plan.tune.seeds],
            }
            for each, mean in zip(arm.candidates, means, strict=True)
        ],
        "at_edge": at_edge(arm.chosen or {}, tried),
    }


def _run(study: Path, key: str, seed: int) -> ResultRow:
    folder = job_folder(study, key, seed)
    status, result, damage = job_status(folder), None, None
    try:
        result = read_run_result(folder)
    except DataError as error:
        damage = f"{error.what}. {error.hint}"
    state, why = _state(folder, result, status, damage)
    metrics: dict[str, ResultRow] = {}
    baselines: dict[str, dict[str, float]] = {}
    for score in [*(result.figures if result else ()), *read_measured(folder).figures]:
        network = score.network.removesuffix(" network")
        if network != "trained":
            baselines.setdefault(network, {})[score.protocol] = score.top1
            continue
        metrics[score.protocol] = {
            "top1": score.top1,
            "version": score.protocol_version,
            "interval": score.top1_interval,
            "test_images": score.test_images,
            "measured_on": result.measured_on if result else "test",
        }
    return {
        "seed": seed,
        "folder": str((folder / "run").relative_to(study)),
        "state": state,
        "error": why,
        "exit_code": status.get("exit_code") if status else None,
        **_fields(result, "verdict", "reason", "steps", "identity"),
        "metrics": metrics,
        "baselines": baselines,
        **_fields(result and result.evidence, "std_sqrt_d", "effective_rank"),
        "loss": result.evidence.last_loss if result else None,
        "seconds": round(sum(result.seconds.values()), 1) if result and result.seconds else None,
    }


def _fields(of: object, *names: str) -> ResultRow:
    return {name: getattr(of, name, None) for name in names}


def _state(
    folder: Path, result: RunResult | None, status: ResultRow | None, damage: str | None
) -> tuple[str, str | None]:
    """(done | running | waiting | stopped | failed, what went wrong)."""
    if folder.is_dir() and is_held(folder):
        return "running", None
    if damage is not None:
        return "failed", damage
    if status is None:
        # Nobody is at it and nothing was written down: not begun, or killed.
        return ("stopped" if (folder / "run").exists() else "waiting"), None
    code = status.get("exit_code")
    if code == StoppedError.exit_code:
        return "stopped", None
    if result is not None and status.get("error") is None:
        return "done", None
    return "failed", status.get("error") or f"it ended with exit code {code}"


def _summary(
    arm: ResultRow, runs: list[ResultRow], base_runs: list[ResultRow], asked: int
) -> ResultRow:
    done = [run for run in runs if run["state"] == "done"]
    base = [run for run in base_runs if run["state"] == "done"]
    protocols = list(dict.fromkeys(name for run in done for name in run["metrics"]))
    verdicts = Counter(run["verdict"] for run in done if run["verdict"])
    verdict = next(iter(verdicts)) if len(verdicts) == 1 else ("mixed" if verdicts else None)
    judged = bool(arm["expect"] and verdicts)
    top1 = {name: top1_by_seed(done, name) for name in protocols}
    gaps = {name: paired_difference(top1[name], top1_by_seed(base, name)) for name in protocols}
    return {
        "done": len(done),
        "asked": asked if runs else 0,
        "metrics": {name: mean_std(list(values.values())) for name, values in top1.items()},
        "difference": {
            name: gap for name, gap in gaps.items() if gap is not None and not arm["is_base"]
        },
        **{
            signal: mean_std([run[signal] for run in done if run[signal] is not None])
            for signal in ("std_sqrt_d", "effective_rank", "loss")
        },
        "verdicts": dict(verdicts),
        "verdict": verdict,
        "as_expected": set(verdicts) <= set(arm["expect"]) if judged else None,
    }


def top1_by_seed(runs: Sequence[ResultRow], protocol: str) -> dict[int, float]:
    """The share by seed of those runs that have a figure by the protocol."""
    return {
        run["seed"]: run["metrics"][protocol]["top1"] for run in runs if protocol in run["metrics"]
    }


def _not_run(plan: StudyPlan, arms: list[ResultRow]) -> Iterator[ResultRow]:
    for planned in plan.arms:
        if planned.not_run is not None:
            yield {"arm": planned.name, "seed": None, "why": planned.not_run}
    for arm in arms:
        for run in arm["runs"]:
            if run["state"] != "done":
                why = run["error"] or _WHY[run["state"]]
                yield {"arm": arm["name"], "seed": run["seed"], "why": why}


def _notes(plan: StudyPlan, arms: list[ResultRow], threads: Any) -> Iterator[str]:
    if len(plan.seeds) == 1:
        yield (
            f"One seed ({plan.seeds[0]}): differences have no interval, and another seed may"
            " turn small ones around."
        )
    else:
        yield (
            "Intervals are 95 % t-intervals over seeds, paired by seed, each for its arm alone:"
            " they cover the choice of the seed, not that of the test images. What differs from"
            " the base is judged with Holm's correction over the arms, each metric apart."
        )
    metrics = [each for arm in arms for run in arm["runs"] for each in run["metrics"].values()]
    for size, what in sorted({(each["test_images"], each["measured_on"]) for each in metrics}):
        half = 100 * 1.96 * (0.25 / size) ** 0.5
        yield (
            f"{size:,} {what} images: top-1 near 50 % is known to about ± {half:.1f} points by them"
            " alone."
        )
    yield from (f"{arm['label']}: {warning}" for arm in arms for warning in arm["warnings"])
    if isinstance(threads, list):  # they were changed between the runs
        numbers = " or ".join(map(str, threads))
        yield f"The runs had {numbers} CPU threads each: sums in another order differ by rounding."


def _stale(folder: Path, keys: set[str]) -> list[str]:
    """Folders of arms that are in the study no more, or were changed."""
    jobs = folder / "jobs"
    if not jobs.is_dir():
        return []
    return sorted(f"jobs/{entry.name}" for entry in jobs.iterdir() if entry.name not in keys)


def _provenance(folder: Path, arms: list[ResultRow]) -> ResultRow:
    """Software, machine and data, as the locks of the runs have them; where they differ, all."""
    found: dict[str, dict[str, list[Any]]] = {"software": {}, "machine": {}, "data": {}}
    for run in (run for arm in arms for run in arm["runs"]):
        with suppress(ZooError, OSError):
            lock = read_lock(folder / run["folder"])
            for table, known in found.items():
                entries = lock.get(table)
                for key, value in entries.items() if isinstance(entries, dict) else ():
                    if value not in known.setdefault(key, []):
                        known[key].append(value)
    return {
        table: {key: values[0] if len(values) == 1 else values for key, values in known.items()}
        for table, known in found.items()
    }
