"""What a run is judged by, and `training.stop_on_collapse`: when a collapse is plain.

The rules are those of the verdict (`evaluation/verdict.py`), on the same evidence, so that a run
that is ended here is judged collapsed. What is decided follows from the rows alone: a run that
resumes decides the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from simsiam_zoo.evaluation.frozen_pass import FEW
from simsiam_zoo.evaluation.networks import set_buffers
from simsiam_zoo.evaluation.verdict import Evidence, judge
from simsiam_zoo.model.siamese import Loss, Siamese
from simsiam_zoo.runtime import distributed
from simsiam_zoo.training.batches import monitor_ids, to_device, train_loader
from simsiam_zoo.training.measuring import RunEvaluation
from simsiam_zoo.training.network import build_siamese
from simsiam_zoo.training.run_folder import MetricsRow
from simsiam_zoo.training.setup import Setup
from simsiam_zoo.training.weights import load_initial_weights

IN_A_ROW = 2
"""How often in a row the collapse has to be seen."""

WARM_UP = 0.1
"""Share of the run before which nothing is concluded: embeddings of the first epochs are narrow."""

CALIBRATION_BATCHES = 50

BEST_GAIN = (1.0, 1.0, 1.0)
"""Plain is a collapse that no kNN figure would excuse: it has not been taken on the way."""


class CollapseWatch:
    """Says whether a run has plainly collapsed. Never, unless the recipe asks for it.

    It asks after each tenth of the run, whatever `evaluation.online_epochs` says: how a run is
    logged does not decide where it ends.
    """

    def __init__(self, setup: Setup, evaluation: RunEvaluation) -> None:
        self._setup, self._evaluation = setup, evaluation
        self._on = setup.recipe.training.stop_on_collapse
        self._every = math.ceil(setup.recipe.training.epochs / 10) * setup.plan.steps

    def due(self, step: int) -> bool:
        """Whether the run has to be measured after `step` steps."""
        return self._on and step % self._every == 0 and 0 < step < self._setup.steps

    def stops(self, rows: Sequence[MetricsRow]) -> int | None:
        """The step at which the run is to end, the newest row's; None: it goes on.

        Every rank calls it; the first one's rows decide.

        Args:
            rows: of metrics.jsonl. Only those up to the last one that is due count.
        """
        step = distributed.from_main(lambda: self._suspected(rows))
        if step is None:
            return None
        # Narrow from the start is no collapse; worth its price only where all else speaks for one.
        untrained = self._untrained_rank
        ends = distributed.from_main(
            lambda: all(self._plain(rows, at, untrained) for at in self._before(step))
        )
        return step if ends else None

    def _suspected(self, rows: Sequence[MetricsRow]) -> int | None:
        step: int = rows[-1]["step"] if rows else 0
        if not self.due(step):
            return None
        warm = max(
            WARM_UP * self._setup.steps,
            self._setup.recipe.optim.warmup_epochs * self._setup.plan.steps,
        )
        seen = self._before(step)
        return step if seen[-1] >= warm and all(self._plain(rows, at) for at in seen) else None

    def _before(self, step: int) -> list[int]:
        return [step - back * self._every for back in range(IN_A_ROW)]

    def _plain(self, rows: Sequence[MetricsRow], step: int, untrained: float | None = None) -> bool:
        there = [row for row in rows if row["step"] == step and "loss" not in row]
        if not there:
            return False
        rank = there[0].get("effective_rank")
        seen = gather_evidence(
            self._setup, rows, step, rank=rank, untrained_rank=untrained, gain=BEST_GAIN
        )
        return judge(seen)[0] == "collapsed"

    @cached_property
    def _untrained_rank(self) -> float | None:
        return self._evaluation.rank(untrained_network(self._setup))


def gather_evidence(
    setup: Setup,
    rows: Sequence[MetricsRow],
    step: int,
    *,
    rank: float | None,
    untrained_rank: float | None = None,
    gain: tuple[float, float, float] | None = None,
    unmeasured: str | None = None,
) -> Evidence:
    """The evidence after `step` steps.

    Args:
        setup: the run.
        rows: of metrics.jsonl; later ones than `step` are not looked at.
        step: steps that were done.
        rank: effective rank of the embeddings then.
        untrained_rank, gain, unmeasured: as in `Evidence`.
    """
    loss = setup.siamese.loss
    known = [row for row in rows if row["step"] <= step]
    return Evidence(
        finite=True,
        first_loss=next((row["loss"] for row in known if "loss" in row), None),
        last_loss=late_mean(known, "loss", step),
        loss_minimum=loss.minimum if isinstance(loss, Loss) else None,
        spread=late_mean(known, "std_sqrt_d", step),
        rank=rank,
        rank_limit=None if rank is None else min(setup.siamese.dim, len(monitor_ids(setup))),
        untrained_rank=untrained_rank,
        gain=gain,
        unmeasured=unmeasured,
        before=state_before(setup),
    )


def late_mean(rows: Sequence[MetricsRow], key: str, step: int) -> float | None:
    """Mean of a figure over the rows of the last tenth before `step`, or else the newest one.

    None where no row has it.
    """
    having = [row for row in rows if key in row]
    late: list[float] = [row[key] for row in having if row["step"] > 0.9 * step]
    late = late or [row[key] for row in having[-1:]]
    return sum(late) / len(late) if late else None


def state_before(setup: Setup) -> str:
    """What to call that network beside the trained one: it may begin with another's weights."""
    return "starting" if setup.init else "untrained"


def untrained_network(setup: Setup) -> Siamese:
    """The network as the run began with it, with BN statistics of training views.

    Without these its features would be those of no network that anybody would use, and a run that
    learned nothing would beat it by its BN statistics alone. The first rank takes them, of whole
    batches, for all: they do not depend on the number of processes.
    """
    untrained = build_siamese(
        setup.recipe,
        setup.plan,
        setup.runtime,
        lambda built: load_initial_weights(built, setup.init),
    )

    encoder = nn.Sequential(untrained.backbone, untrained.projector)

    def calibrated() -> list[Tensor]:
        images = CALIBRATION_BATCHES * setup.recipe.training.batch_size
        with distributed.apart(), setup.runtime.autocast():
            loaded = train_loader(setup, workers=0 if images <= 2 * FEW else None).batches()
            views = (
                view
                for each in itertools.islice(loaded, CALIBRATION_BATCHES)
                for view in to_device(setup, each).views
            )
            torch.optim.swa_utils.update_bn(views, encoder)
        return [buffer.cpu() for buffer in encoder.buffers()]

    set_buffers(distributed.from_main(calibrated), encoder.buffers())
    return untrained
