"""The end of a run: measure it, judge it, write down what it leaves behind."""

from __future__ import annotations

import math
import time
from typing import Any

from simsiam_zoo.evaluation.evaluate import as_row
from simsiam_zoo.evaluation.verdict import MEASURED_ON, Evidence, judge
from simsiam_zoo.model.siamese import parameter_counts
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.collapse import (
    CollapseWatch,
    gather_evidence,
    state_before,
    untrained_network,
)
from simsiam_zoo.training.curves import draw_curves
from simsiam_zoo.training.export import save_backbone
from simsiam_zoo.training.measuring import FinalScores, RunEvaluation
from simsiam_zoo.training.run_folder import RunFolder
from simsiam_zoo.training.setup import Setup

RESULT_FORMAT = 1


def conclude(
    setup: Setup, folder: RunFolder, evaluation: RunEvaluation, progress: Progress, elapsed: float
) -> dict[str, Any]:
    """Evaluate the trained network, judge the run, and write everything but the checkpoints.

    Every rank calls it, and takes its share of the measuring; the first one judges and writes.

    Args:
        setup, folder: the run, its steps done.
        evaluation: measures it.
        progress: told what is going on.
        elapsed: seconds spent training.

    Returns:
        What `result.json` holds.
    """
    began = time.monotonic()
    stopped = CollapseWatch(setup, evaluation).stops(folder.rows)
    step = stopped or setup.steps
    progress.say("evaluating")
    untrained = untrained_network(setup)
    rank = evaluation.rank(setup.siamese)
    final = evaluation.final(untrained, f"{state_before(setup)} network")
    untrained_rank = evaluation.rank(untrained)

    def write() -> dict[str, Any]:
        evidence = gather_evidence(
            setup,
            folder.rows,
            step,
            rank=rank,
            untrained_rank=untrained_rank,
            gain=final.gain,
            unmeasured=final.unmeasured,
        )
        # it is there if the run stopped where it was measured, or was cut short here the last time
        known = any(row["step"] == step and "effective_rank" in row for row in folder.rows)
        if rank is not None and not known:
            folder.write({"step": step, "epoch": step // setup.plan.steps, "effective_rank": rank})
        seconds = {
            "training": round(elapsed, 1),
            "evaluation": round(time.monotonic() - began, 1),
        }
        result = result_of(setup, folder, final, evidence, step)
        result |= {"stopped_on_collapse": stopped, "seconds": seconds}
        save_backbone(setup, folder.path / "backbone.safetensors")
        finish(setup, folder, result)
        evaluation.clean_up()
        return result

    return distributed.from_main(write)


def result_of(
    setup: Setup, folder: RunFolder, final: FinalScores, evidence: Evidence, step: int
) -> dict[str, Any]:
    """What `result.json` says of a run that was measured after `step` steps."""
    verdict, reason = judge(evidence)
    refused = [
        {"network": network, "protocol": protocol, "reason": why}
        for network, protocol, why in final.refused
    ]
    return {
        "format": RESULT_FORMAT,
        "verdict": verdict,
        "reason": reason,
        "figures": [{"network": network, **as_row(score)} for network, score in final.scores],
        **({"refused": refused} if refused else {}),
        "evidence": evidence_dict(evidence),
        "identity": setup.identity,
        "seed": setup.recipe.training.seed,
        "steps": step,
        "damaged_images": len(folder.damaged),
        "parameters": parameter_counts(setup.siamese),
    }


def evidence_dict(evidence: Evidence) -> dict[str, Any]:
    """The evidence as `result.json` has it; JSON has no number that is not finite."""
    numbers = {
        "first_loss": evidence.first_loss,
        "last_loss": evidence.last_loss,
        "loss_minimum": evidence.loss_minimum,
        "std_sqrt_d": evidence.spread,
        "effective_rank": evidence.rank,
        "effective_rank_limit": evidence.rank_limit,
        "effective_rank_bound": evidence.rank_bound,
        "untrained_effective_rank": evidence.untrained_rank,
    }
    return {
        **{n: x if x is None or math.isfinite(x) else None for n, x in numbers.items()},
        "knn_gain_interval": None if evidence.gain is None else list(evidence.gain),
        "bounds_measured_on": MEASURED_ON,
    }


def conclude_diverged(setup: Setup, folder: RunFolder, step: int) -> None:
    """Write the result of a run whose loss or weights stopped being finite."""
    verdict, reason = judge(Evidence(finite=False))
    result: dict[str, Any] = {
        "format": RESULT_FORMAT,
        "verdict": verdict,
        "reason": f"{reason} by step {step}",
        "figures": [],
        "identity": setup.identity,
        "seed": setup.recipe.training.seed,
        "steps": step,
    }
    finish(setup, folder, result)


def finish(setup: Setup, folder: RunFolder, result: dict[str, Any]) -> None:
    """Draw the curves and write `result.json`: from then on the run is complete."""
    curves = folder.path / "curves.svg"
    draw_curves(folder.rows, setup.recipe, str(result["verdict"]), curves)
    folder.finish(result)
