"""`training.stop_on_collapse`: when a run's collapse is plain enough to end it.

The rules are those of the verdict (`evaluation/verdict.py`), on the same evidence, so that a run
that is ended here is judged collapsed. What is decided follows from the rows alone: a run that
resumes decides the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

from simsiam_zoo.evaluation.verdict import judge
from simsiam_zoo.training.evidence import gather_evidence
from simsiam_zoo.training.monitor import embedding_rank
from simsiam_zoo.training.record import Row
from simsiam_zoo.training.setup import Setup
from simsiam_zoo.training.untrained import untrained_network

LOOKS_IN_A_ROW = 2
"""How often in a row the collapse has to be seen."""

WARM_UP = 0.1
"""Share of the run before which nothing is concluded: embeddings of the first epochs are narrow."""


BEST_GAIN = (1.0, 1.0, 1.0)
"""Plain is a collapse that no kNN figure would excuse: it has not been taken on the way."""


class CollapseWatch:
    """Says whether a run has plainly collapsed. Never, unless the recipe asks for it.

    It looks after each tenth of the run, whatever `logging.knn_epochs` says: how a run is logged
    does not decide where it ends.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._on = setup.recipe.training.stop_on_collapse
        self._every = math.ceil(setup.recipe.training.epochs / 10) * setup.plan.steps

    def is_look(self, step: int) -> bool:
        """Whether a look is due after `step` steps."""
        return self._on and step % self._every == 0 and 0 < step < self._setup.steps

    def stops(self, rows: Sequence[Row]) -> int | None:
        """The step at which the run is to end, the newest row's; None: it goes on.

        Args:
            rows: of metrics.jsonl. Only those up to the last look count.
        """
        step: int = rows[-1]["step"] if rows else 0
        if not self.is_look(step):
            return None
        looks = [step - back * self._every for back in range(LOOKS_IN_A_ROW)]
        warm = max(
            WARM_UP * self._setup.steps,
            self._setup.recipe.optim.warmup_epochs * self._setup.plan.steps,
        )
        if looks[-1] < warm or not all(self._plain(rows, at) for at in looks):
            return None
        return step

    def _plain(self, rows: Sequence[Row], step: int) -> bool:
        there = [row for row in rows if row["step"] == step and "loss" not in row]
        if not there:
            return False
        rank = there[0].get("effective_rank")
        seen = gather_evidence(self._setup, rows, step, rank=rank, gain=BEST_GAIN)
        if judge(seen)[0] != "collapsed":
            return False
        # Narrow from the start is no collapse; worth its price only where all else speaks for one.
        untrained = self._untrained_rank
        seen = gather_evidence(
            self._setup, rows, step, rank=rank, untrained_rank=untrained, gain=BEST_GAIN
        )
        return judge(seen)[0] == "collapsed"

    @cached_property
    def _untrained_rank(self) -> float | None:
        return embedding_rank(self._setup, untrained_network(self._setup))
