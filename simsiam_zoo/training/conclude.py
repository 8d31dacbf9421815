"""What a run is judged by, and its end: measure it, judge it, write down what it leaves behind."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.charts.drawing import line_sheet
from simsiam_zoo.charts.lines import run_charts
from simsiam_zoo.errors import DivergedError
from simsiam_zoo.evaluation.evaluate import as_row, right_images
from simsiam_zoo.evaluation.frozen_pass import FEW, set_buffers
from simsiam_zoo.evaluation.verdict import MEASURED_ON, Evidence, judge
from simsiam_zoo.metrics import TRAINED
from simsiam_zoo.model.siamese import Loss, Siamese, parameter_counts
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.checkpoint import newest_checkpoint
from simsiam_zoo.runtime.folders import atomic_write_text
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.advice import advice_for, advice_lines
from simsiam_zoo.training.batches import monitor_ids, to_device, train_loader
from simsiam_zoo.training.measuring import FinalScores, RunEvaluation
from simsiam_zoo.training.run_folder import MetricsRow, RunFolder
from simsiam_zoo.training.setup import Setup, build_siamese
from simsiam_zoo.training.weights import write_backbone
from simsiam_zoo.training.wiring import wiring_of
from simsiam_zoo.training.without_labels import measure_without_labels

RESULT_FORMAT = 1

WARM_UP = 0.1
"""Share of the run before which no collapse counts: embeddings of the first epochs are narrow."""

CALIBRATION_BATCHES = 50

BEST_GAIN = (1.0, 1.0, 1.0)
"""Plain is a collapse that no kNN figure would excuse: it has not been taken on the way."""


class CollapseWatch:
    """`training.stop_on_collapse`: says after each tenth of a run whether it plainly collapsed.

    The rules are those of the verdict, on the same evidence, so that a run that is ended here is
    judged collapsed. They see the rows alone, so that a run that resumes decides the same.
    """

    def __init__(self, setup: Setup, evaluation: RunEvaluation) -> None:
        self._setup, self._evaluation = setup, evaluation
        self._every = math.ceil(setup.recipe.training.epochs / 10) * setup.plan.steps

    def due(self, step: int) -> bool:
        """Whether the run has to be measured after `step` steps."""
        on = self._setup.recipe.training.stop_on_collapse
        return on and step % self._every == 0 and 0 < step < self._setup.steps

    def stops(self, rows: Sequence[MetricsRow]) -> int | None:
        """The newest row's step, if the run is to end there. The first rank's rows decide."""
        setup = self._setup
        step: int = distributed.from_main(lambda: rows[-1]["step"] if rows else 0)
        looks = (step - self._every, step)  # twice in a row
        warm_up = setup.recipe.optim.warmup_epochs * setup.plan.steps
        changed = setup.stages[-1].begin * setup.plan.steps  # what comes back may recover
        early = looks[0] < max(WARM_UP * setup.steps, warm_up) or looks[0] <= changed
        if not self.due(step) or early:
            return None
        untrained = self._untrained_rank
        ends = distributed.from_main(lambda: all(self._plain(rows, at, untrained) for at in looks))
        return step if ends else None

    def _plain(self, rows: Sequence[MetricsRow], step: int, untrained: float | None) -> bool:
        measured = (row for row in rows if row["step"] == step and "loss" not in row)
        if (row := next(measured, None)) is None:
            return False
        evidence = gather_evidence(self._setup, rows, step, row.get("effective_rank"))
        evidence = replace(evidence, untrained_rank=untrained, gain=BEST_GAIN)
        return judge(evidence)[0] == "collapsed"

    @cached_property
    def _untrained_rank(self) -> float | None:
        return self._evaluation.rank(untrained_network(self._setup))


def gather_evidence(
    setup: Setup, rows: Sequence[MetricsRow], step: int, rank: float | None
) -> Evidence:
    """What the rows up to `step` steps and the effective rank then are evidence of.

    Values of a loss that another one took the place of tell nothing of it.
    """
    loss = setup.siamese.loss
    stages = setup.stages[: setup.changes + 1]
    since = max(s.begin for s in stages if s.change is None or s.change.loss) * setup.plan.steps
    known = [row for row in rows if row["step"] <= step]
    losses = [row for row in known if "loss" in row and row["step"] > since]
    return Evidence(
        finite=True,
        first_loss=losses[0]["loss"] if losses else None,
        last_loss=late_mean(losses, "loss", step),
        loss_minimum=loss.minimum if isinstance(loss, Loss) else None,
        spread=late_mean(known, "std_sqrt_d", step),
        rank=rank,
        rank_limit=None if rank is None else min(setup.siamese.dim, len(monitor_ids(setup))),
        before=state_before(setup),
    )


def late_mean(rows: Sequence[MetricsRow], key: str, step: int) -> float | None:
    """Mean of a figure over the last tenth of the steps, or else the newest one."""
    having = [row for row in rows if key in row]
    late: list[float] = [row[key] for row in having if row["step"] > 0.9 * step]
    late = late or [row[key] for row in having[-1:]]
    return sum(late) / len(late) if late else None


def rank_course(
    rows: Sequence[MetricsRow], step: int, last: float | None
) -> tuple[tuple[int, float], ...]:
    """(step, effective rank) of each measurement before `step`, and the `last` one."""
    found = {row["step"]: row["effective_rank"] for row in rows if "effective_rank" in row}
    found = {at: rank for at, rank in found.items() if at < step}
    if last is not None and math.isfinite(last):
        found[step] = last
    return tuple(found.items())


def state_before(setup: Setup) -> str:
    """What to call that network beside the trained one: it may begin with another's weights."""
    return "starting" if setup.init else "untrained"


def untrained_network(setup: Setup) -> Siamese:
    """The network as the run began with it, with BN statistics of training views.

    Without these a run that learned nothing would beat it by its BN statistics alone. The first
    rank takes them, of whole batches, for all: they do not depend on the number of processes.
    """
    untrained = build_siamese(setup.recipe, *setup.sizes, setup.init, setup.runtime)
    encoder = nn.Sequential(untrained.backbone, untrained.projector)

    def calibrated() -> list[Tensor]:
        images = CALIBRATION_BATCHES * setup.recipe.training.batch_size
        with distributed.apart(), setup.runtime.autocast():
            plain = setup.stages[0].recipe  # its changes decide nothing here
            at_start = replace(setup, recipe=plain, siamese=untrained, changes=0)
            loaded = train_loader(at_start, workers=0 if images <= 2 * FEW else None).batches()
            views = (
                view
                for each in itertools.islice(loaded, CALIBRATION_BATCHES)
                for view in to_device(setup, each).views
            )
            torch.optim.swa_utils.update_bn(views, encoder)
        return [buffer.cpu() for buffer in encoder.buffers()]

    set_buffers(distributed.from_main(calibrated), encoder.buffers())
    return untrained


def conclude(
    setup: Setup, folder: RunFolder, evaluation: RunEvaluation, progress: Progress, elapsed: float
) -> dict[str, Any]:
    """Evaluate the trained network, judge the run, and write all but the checkpoints.

    Every rank measures its share; the first one judges and writes. `elapsed` are the seconds of
    training. Returns what `result.json` holds.
    """
    began = time.monotonic()
    stopped = CollapseWatch(setup, evaluation).stops(folder.rows)
    step = stopped or setup.steps
    progress.say("evaluating")
    with progress.stage("BN statistics of the untrained network"):
        untrained = untrained_network(setup)
    rank = evaluation.rank(setup.siamese)
    final = evaluation.final(untrained, f"{state_before(setup)} network")
    untrained_rank = evaluation.rank(untrained)
    labelled = final.gain is not None
    views = None
    if not labelled:
        with progress.stage("measures that need no labels"):
            views = measure_without_labels(setup, evaluation, untrained)

    def write() -> dict[str, Any]:
        course = rank_course(folder.rows, step, rank)
        evidence = replace(
            gather_evidence(setup, folder.rows, step, rank),
            untrained_rank=untrained_rank,
            gain=final.gain,
            unmeasured=final.unmeasured,
            without_labels=None if views is None else replace(views, rank_course=course),
        )
        # it is there if the run stopped where it was measured, or was cut short here the last time
        known = any(row["step"] == step and "effective_rank" in row for row in folder.rows)
        if rank is not None and not known:
            folder.write({"step": step, "epoch": step // setup.plan.steps, "effective_rank": rank})
        evaluating = time.monotonic() - began
        seconds = {"training": round(elapsed, 1), "evaluation": round(evaluating, 1)}
        result = result_of(setup, folder, final, evidence, step)
        result |= {"stopped_on_collapse": stopped, "seconds": seconds}
        wiring = wiring_of(setup, untrained)
        result["advice"] = advice_for(setup.recipe, result, evidence, folder.rows, wiring)
        file = folder.path / "backbone.safetensors"
        write_backbone(setup.siamese.backbone, setup.recipe, setup.identity, file)
        write_right_images(setup, folder, final)
        finish(setup, folder, result)
        evaluation.clean_up()
        return result

    return distributed.from_main(write)


def result_of(
    setup: Setup, folder: RunFolder, final: FinalScores, evidence: Evidence, step: int
) -> dict[str, Any]:
    """What `result.json` says of a run that was measured after `step` steps."""
    verdict, reason = judge(evidence)
    changes = [
        {"epoch": change.epoch, "step": change.epoch * setup.plan.steps, "what": str(change)}
        for change in setup.recipe.change[: setup.changes]
    ]
    return {
        "format": RESULT_FORMAT,
        "verdict": verdict,
        "reason": reason,
        "measured_on": setup.dataset.measured_on,
        "figures": [{"network": network, **as_row(score)} for network, score in final.scores],
        **({"refused": list(final.refused)} if final.refused else {}),
        "evidence": evidence_dict(evidence),
        "identity": setup.identity,
        "seed": setup.recipe.training.seed,
        "steps": step,
        "damaged_images": len(folder.damaged),
        "parameters": parameter_counts(setup.siamese),
        **({"changes": changes} if changes else {}),
    }


def write_right_images(setup: Setup, folder: RunFolder, final: FinalScores) -> None:
    """`correct.json`: which test images the trained network got right, by protocol."""
    test = setup.dataset.test
    if test is None or not final.scores:
        return
    figures = [
        {**as_row(score), "right": right_images(score)}
        for network, score in final.scores
        if network == TRAINED
    ]
    found = {"measured_on": setup.dataset.measured_on, "test": test.digest}
    record = {"format": 1, "data": found, "figures": figures}
    atomic_write_text(folder.path / "correct.json", json.dumps(record, indent=1) + "\n")


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
    found: dict[str, Any] = {
        **{n: x if x is None or math.isfinite(x) else None for n, x in numbers.items()},
        "knn_gain_interval": None if evidence.gain is None else list(evidence.gain),
    }
    if (views := evidence.without_labels) is not None:
        found["without_labels"] = asdict(views) | {
            "before": evidence.before,
            "shared_gain": list(views.shared_gain),
            "rank_course": [list(point) for point in views.rank_course],
        }
    return found | {"bounds_measured_on": MEASURED_ON}


def stop_diverged(setup: Setup, folder: RunFolder, step: int) -> NoReturn:
    """Write the result of a run whose loss or weights are not finite; DivergedError."""
    evidence = Evidence(finite=False)
    verdict, reason = judge(evidence)
    result: dict[str, Any] = {
        "format": RESULT_FORMAT,
        "verdict": verdict,
        "reason": f"{reason} by step {step}",
        "figures": [],
        "identity": setup.identity,
        "seed": setup.recipe.training.seed,
        "steps": step,
    }
    advice = advice_for(setup.recipe, result, evidence, folder.rows, wiring_of(setup, None))
    result["advice"] = advice
    if folder.writes:
        finish(setup, folder, result)
    last = newest_checkpoint(folder.checkpoints)
    told = [] if last is None else [f"The last good checkpoint is {last}."]
    raise DivergedError(
        f"the run diverged: its loss or weights were not finite by step {step}",
        "\n  ".join([*told, *advice_lines(advice, folder.path)]),
    )


def finish(setup: Setup, folder: RunFolder, result: dict[str, Any]) -> None:
    """Draw the curves and write `result.json`: from then on the run is complete."""
    recipe = setup.recipe
    if charts := run_charts(folder.rows, recipe.marks()):
        parts = ", ".join(f"{kind} {getattr(recipe, kind).name}" for kind in PARTS)
        title = f"{parts}, seed {recipe.training.seed}: {result['verdict']}"
        atomic_write_text(folder.path / "curves.svg", line_sheet(title, charts))
    folder.finish(result)
