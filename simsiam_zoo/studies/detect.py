"""How many seeds a study needs to tell a difference, from the spread in an earlier study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.studies.plan import StudyPlan
from simsiam_zoo.studies.results import RESULTS, top1_by_seed
from simsiam_zoo.studies.statistics import ALPHA, POWER, paired_difference, seeds_needed, std_limits

_WAY_OUT = "Run a study with two seeds at least, or name one that has them: --from FOLDER."


def plan_seeds(plan: StudyPlan, earlier: Path, points: float) -> dict[str, Any]:
    """The seeds with which each arm's difference of `points` is found, as plain values.

    By the study's first metric (else the base's first protocol), from the paired differences in the
    results in `earlier`; arms are the same that have the same name. `seeds` is the most that an arm
    needs, `runs` how many that makes for all arms; an arm without a spread has `seeds` None, `why`.

    Raises:
        InputError: there are no results, or none of the arms has a spread there.
        DataError: the results are damaged, or of another version.
    """
    path = earlier / RESULTS
    results = _read(path)
    try:
        runs = {arm["name"]: arm["runs"] for arm in results["arms"]}
        base = next(arm["name"] for arm in results["arms"] if arm["is_base"])
        metric = _main([*plan.metrics, *plan.arms[0].recipe.evaluation.protocols], runs, path)
        top1 = {name: top1_by_seed(_done(each), metric) for name, each in runs.items()}
    except (KeyError, TypeError, AttributeError, StopIteration):
        raise DataError(f"{path} is damaged", f"`simsiam-zoo report {earlier}` mends it.") from None
    compared = [arm for arm in plan.arms if not arm.is_base and arm.same_as is None]
    arms = [
        {"name": arm.name, "label": arm.label, **_needed(top1.get(arm.name), top1[base], points)}
        for arm in compared
        if arm.not_run is None
    ]
    known = [arm for arm in arms if arm["seeds"] is not None]
    if not known:
        reasons = "; ".join(dict.fromkeys(arm["why"] for arm in arms)) or "the study has no arms"
        raise InputError(f"no arm has a spread over seeds in {path}: {reasons}", _WAY_OUT)
    most = max(known, key=lambda arm: arm["seeds"])
    return {
        "points": points,
        "metric": metric,
        "from": str(earlier),
        "alpha": ALPHA,
        "power": POWER,
        "arms": arms,
        "seeds": most["seeds"],
        "most_demanding": most["name"],
        "runs": most["seeds"] * (len(arms) + 1),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        results = json.loads(path.read_text("utf-8"))
    except OSError:
        raise InputError(f"there are no results of an earlier study: {path}", _WAY_OUT) from None
    except ValueError:
        results = None
    if not isinstance(results, dict) or results.get("format") != 1:
        way_out = f"`simsiam-zoo report {path.parent}` writes it anew."
        raise DataError(f"{path} holds no results that this version reads", way_out)
    return results


def _done(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [run for run in runs if run["state"] == "done"]


def _main(asked: list[str], runs: Mapping[str, list[dict[str, Any]]], path: Path) -> str:
    """The measured protocol that the first of the specs `asked` names."""
    if not asked:
        raise InputError("the study measures by no protocol", "Say one by --metric.")
    name = asked[0].rpartition("/")[2].partition(":")[0]
    found = dict.fromkeys(
        m for each in runs.values() for run in _done(each) for m in run["metrics"]
    )
    main: str | None = next((metric for metric in found if metric.partition(" ")[0] == name), None)
    if main is None:
        there = f"It has {', '.join(found)}: ask for one by --metric." if found else _WAY_OUT
        raise InputError(f"{path} has no figures by {name}", there)
    return main


def _needed(
    arm: Mapping[int, float] | None, base: Mapping[int, float], points: float
) -> dict[str, Any]:
    """The spread of one arm's differences, of how many seeds it is, and what it asks for."""
    found = None if arm is None else paired_difference(arm, base)
    told: dict[str, Any] = dict.fromkeys(("std", "std_interval", "seeds"))
    told |= {"seen": 0, "why": "it has no figures there"}
    if found is None:
        return told
    told |= {"std": found["std"], "seen": found["n"], "why": None}
    if found["n"] == 1:
        return told | {"why": "one seed alone"}
    if found["p"] is None:
        return told | {"why": "the same difference with every seed, a spread of 0"}
    low, high = std_limits(found["n"])
    return told | {
        "seeds": seeds_needed(points / 100, found["std"]),
        "std_interval": [low * found["std"], high * found["std"]],
    }
