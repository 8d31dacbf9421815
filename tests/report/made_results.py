"""Results of studies that nobody ran, and the metrics of their runs, for the report to show."""

from __future__ import annotations

import json
import math
import random
import statistics
from pathlib import Path
from typing import Any

from simsiam_zoo.studies.statistics import correct, paired_difference

KNN, LOGISTIC = "knn (k=20, t=0.1)", "logistic (C=1)"
BASELINES = {"untrained": {KNN: 0.801, LOGISTIC: 0.888}, "raw pixels": {KNN: 0.945, LOGISTIC: 0.9}}
STEPS_PER_EPOCH, EPOCHS = 62, 16


def made_run(
    name: str, seed: int, knn: float, verdict: str = "learned", **changes: Any
) -> dict[str, Any]:
    """A finished run; `changes` replace what it says."""
    collapsed = verdict == "collapsed"
    return {
        "seed": seed,
        "folder": f"jobs/{name}-1a2b3c/seed{seed}/run",
        "state": "done",
        "error": None,
        "exit_code": 0,
        "verdict": verdict,
        "reason": "kNN gains +13.9 points on the untrained network (95%: +11.5 to +16.3)"
        if not collapsed
        else "effective rank 4.1 of 512 (untrained: 60.2) while the loss fell to -0.985",
        "metrics": {
            KNN: {"top1": knn, "version": 2, "interval": _interval(knn), "test_images": 1000},
            LOGISTIC: {"top1": (1 + knn) / 2, "version": 1, "interval": None, "test_images": 1000},
        },
        "baselines": BASELINES,
        "std_sqrt_d": 0.86 if collapsed else 0.998,
        "effective_rank": 4.1 + seed / 3 if collapsed else 82.4 - seed,
        "loss": -0.985 if collapsed else -0.94,
        "steps": STEPS_PER_EPOCH * EPOCHS,
        "seconds": 93.1 + seed,
        "identity": f"{name}-{seed}",
        **changes,
    }


def made_arm(name: str, runs: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """An arm with the summary of its runs; `changes` replace what it says."""
    done = [run for run in runs if run["state"] == "done"]
    verdicts: dict[str, int] = {}
    for run in done:
        if run["verdict"]:
            verdicts[run["verdict"]] = verdicts.get(run["verdict"], 0) + 1
    keys = dict.fromkeys(key for run in done for key in run["metrics"])
    expect = changes.get("expect")
    verdict = next(iter(verdicts)) if len(verdicts) == 1 else "mixed" if verdicts else None
    summary = {
        "done": len(done),
        "asked": len(runs),
        "metrics": {key: _mean([run["metrics"][key]["top1"] for run in done]) for key in keys},
        "difference": {},
        **{
            key: _mean([run[key] for run in done if run[key] is not None])
            for key in ("std_sqrt_d", "effective_rank", "loss")
        },
        "verdicts": verdicts,
        "verdict": verdict,
        "as_expected": (verdict in expect) if expect and verdict else None,
    }
    return {
        "name": name,
        "label": name,
        "part": None,
        "is_base": False,
        "same_as": None,
        "substitution": {},
        "differences": [],
        "expect": None,
        "paper": None,
        "warnings": [],
        "runs": runs,
        "summary": summary,
        **changes,
    }


def made_study(arms: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A study of arms, the first of them the base, with each arm's difference from it."""
    base = arms[0]
    base["is_base"] = True
    by_name = {arm["name"]: arm for arm in arms}
    for arm in arms[1:]:
        if arm["same_as"] is not None:
            arm["summary"] = by_name[arm["same_as"]]["summary"] | {"as_expected": None}
        else:
            arm["summary"]["difference"] = _differences(arm, base)
    correct([arm["summary"]["difference"] for arm in arms if arm["same_as"] is None])
    return {
        "format": 1,
        "title": "Which of the five parts keeps SimSiam from collapsing?",
        "description": "Each arm replaces or removes one part of the recipe, and nothing else.",
        "study": "five-parts",
        "preset": "mnist-5k",
        "metrics": ["knn", "logistic"],
        "seeds": sorted({run["seed"] for arm in arms for run in arm["runs"]}),
        "threads": 1,
        "arms": arms,
        "stale": [],
        "not_run": [],
        "notes": [],
        "provenance": {
            "software": {"simsiam-zoo": "0.1.0", "torch": "2.10.0", "python": "3.12.3"},
            "machine": {"cpu": "2 cores", "accelerator": "none"},
            "data": {"name": "mnist-5k", "digest": "sha256:5f1e0a"},
            "command": "simsiam-zoo ablate five-parts --preset mnist-5k",
        },
        **changes,
    }


def five_parts(seeds: int = 2) -> dict[str, Any]:
    """The project's own study, much as it comes out."""
    chosen = range(seeds)

    def arm(name: str, knn: float, verdict: str = "learned", **changes: Any) -> dict[str, Any]:
        draw = random.Random(name)
        found = [round(min(0.999, knn + draw.uniform(-0.012, 0.012)), 3) for _ in chosen]
        runs = [made_run(name, s, k, verdict) for s, k in zip(chosen, found, strict=True)]
        return made_arm(name, runs, **changes)

    def part(path: str, value: str, of_base: str) -> dict[str, Any]:
        return {
            "label": f"{path}: {value}",
            "part": path,
            "substitution": {path: value},
            "differences": [[f"{path}.name", of_base, value]],
        }

    small = "batch 512 on 4,000 images: 7 steps an epoch"
    return made_study(
        [
            arm("base", 0.94, label="base: SimSiam", expect=["learned"], paper=67.7),
            arm("gradient-none", 0.805, "collapsed", expect=["collapsed"], paper=0.1)
            | part("gradient", "none", "stop-gradient"),
            arm("predictor-none", 0.82, "collapsed", expect=["collapsed"], paper=0.1)
            | part("predictor", "none", "mlp"),
            arm("projector-none", 0.927, expect=["learned"]) | part("projector", "none", "mlp"),
            arm("batch_size-128", 0.931, paper=67.3)
            | {"label": "batch size: 128", "substitution": {"training.batch_size": 128}}
            | {"differences": [["training.batch_size", 64, 128]]},
            arm("batch_size-512", 0.83, "no-gain", paper=68.1, expect=["learned"])
            | {"label": "batch size: 512", "substitution": {"training.batch_size": 512}}
            | {"differences": [["training.batch_size", 64, 512]], "warnings": [small]},
            arm("backbone-vgg", 0.951) | part("backbone", "vgg11_bn", "timm:resnet10t"),
            arm("backbone-densenet", 0.958) | part("backbone", "densenet121", "timm:resnet10t"),
        ]
    )


def write_metrics(results: dict[str, Any], folder: Path, epochs: int = EPOCHS) -> None:
    """A metrics.jsonl for every run with a state in which it has one."""
    for arm in results["arms"]:
        for run in arm["runs"]:
            if run["state"] in ("done", "running", "stopped"):
                shown = epochs if run["state"] == "done" else epochs // 2
                _write_curve(folder / run["folder"], run, shown)


def _write_curve(folder: Path, run: dict[str, Any], epochs: int) -> None:
    draw = random.Random(f"{folder}{run['seed']}")
    collapsed = run["verdict"] == "collapsed"
    end = run["metrics"].get(KNN, {}).get("top1", 0.85)
    total = STEPS_PER_EPOCH * EPOCHS
    lines = []
    for step in range(1, STEPS_PER_EPOCH * epochs + 1):
        done = step / total
        epoch, whole = divmod(step, STEPS_PER_EPOCH)
        if step == 1 or step % 10 == 0:
            fall = 1 - math.exp(-done * (40 if collapsed else 12))
            std = (
                1 - 0.14 * fall if collapsed else 1 - 0.25 * math.exp(-(((done - 0.05) * 30) ** 2))
            )
            noise = draw.gauss(0, 0.012)
            loss = -(0.985 if collapsed else 0.94) * fall + noise
            lines.append(
                {"step": step, "epoch": epoch, "loss": loss, "std_sqrt_d": std + noise / 3}
            )
        if whole == 0:
            knn = end - (end - 0.8) * math.exp(-done * 5) + draw.gauss(0, 0.006)
            lines.append({"step": step, "epoch": epoch, f"top1 {KNN}": knn})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _mean(values: list[float]) -> dict[str, Any] | None:
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std, "n": len(values)}


def _differences(arm: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    def top1(of: dict[str, Any], key: str) -> dict[int, float]:
        return {r["seed"]: r["metrics"][key]["top1"] for r in of["runs"] if r["state"] == "done"}

    keys = arm["summary"]["metrics"]
    gaps = {key: paired_difference(top1(arm, key), top1(base, key)) for key in keys}
    return {key: gap for key, gap in gaps.items() if gap is not None}


def _interval(share: float, images: int = 1000) -> list[float]:
    half = 1.96 * math.sqrt(share * (1 - share) / images)
    return [share - half, min(1.0, share + half)]
