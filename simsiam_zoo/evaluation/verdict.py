"""What became of a run: rules on evidence, never on names.

The rules are tried in this order, and each says which evidence decided it:

diverged      the loss or the weights stopped being finite
collapsed     the embeddings shrank to (nearly) a point or a few directions while the loss went down
undetermined  there is no kNN gain to tell by (no labels, no test images, one class), and no views
              to measure; or rank or LiDAR is low, the rank falls, or views share no more neighbours
no-collapse-seen  there is no kNN gain, and none of these: no more is claimed
learned       the paired 95% interval of the kNN gain over the untrained network lies above 0
worse         it lies below 0
no-gain       none of these
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Verdict = Literal[
    "diverged", "collapsed", "undetermined", "no-collapse-seen", "learned", "worse", "no-gain"
]

MEASURED_ON = "mnist-5k (d = 512), digits (d = 128, 512, 2048), Fashion-MNIST (d = 512)"
"""Where the bounds below were found and tried: elsewhere they are a guess. In `result.json`."""

POINT_SPREAD = 0.1
"""std x sqrt(d) below which all embeddings point the same way. Healthy runs measured: 0.8 to 1."""

LOW_RANK_SHARE, LOW_RANK_OF_UNTRAINED, LOW_RANK = 0.02, 0.04, 3.0
"""Effective rank below which few directions are left: as a share of the most it could be, as a
share of the untrained network's, and however narrow the embedding is (but half of the most that it
could be, where that is less). The bound is the highest.

The second one says more where the embedding is narrow: at d = 128 a collapse leaves 3 directions.
`docs/verdicts.md` has what was measured.
"""

CLEAR_GAIN = 0.05
"""kNN gain over the untrained network, by the low end of its interval, that a low rank does not
outweigh unless it is below half of the bound, or `LOW_RANK`: few directions may hold what classes
need (Fashion-MNIST: rank 10.1 of 512, a gain of 7 to 9 points), and a collapse gains nothing.
"""

LOW_LIDAR_SHARE = 0.1
"""LiDAR, as a share of the most it could be, below which a run without labels is not cleared.

Measured on `digits`, z 128 to 2,048 wide: 0.16 and more where SimSiam learned, at most 0.09 in a
collapse, but 0.11 in one that left little more than rounding: shared neighbours show that one.
"""

STILL_FALLING = 0.5
"""Effective rank at the end, as a share of that in the middle of the run, below which it was
falling when the run ended. Measured on `digits`: 1.0 and more where SimSiam learned.
"""

LOSS_DONE, LOSS_NEAR = 0.5, 0.1
"""Share of the way from the first loss to the minimum after which the loss counts as gone down; or
it is near the minimum, by a share of the minimum's size. A network that cannot solve its task
stays where it began (the paper's fixed random predictor); the loss of a collapse falls.
"""


@dataclass(frozen=True)
class ViewFigures:
    """Of one network: LiDAR of z, the neighbours that views share, the spectrum's decay.

    `evaluation/geometry.py` has the formulas. The decay is None where the spectrum is too short.
    """

    lidar: float
    shared_neighbours: float
    spectrum_decay: float | None


@dataclass(frozen=True)
class WithoutLabels:
    """What is measured where no label tells what a run learned.

    Args:
        trained, untrained: the figures of the two networks, on the same views.
        shared_gain: interval of what the neighbours shared gained on the untrained network
            (low, mean, high), paired by image.
        lidar_limit: the most that LiDAR could be.
        images, views: how many images, and views of each.
        rank_course: (step, effective rank) over the run.
    """

    trained: ViewFigures
    untrained: ViewFigures
    shared_gain: tuple[float, float, float]
    lidar_limit: int
    images: int
    views: int
    rank_course: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What was measured of one run; None where there was nothing to measure.

    Args:
        finite: the loss and the weights are finite.
        first_loss, last_loss: of the first step, and the mean over the last steps.
        loss_minimum: the least value the loss can take, where it is known.
        spread: std x sqrt(d) of the embeddings.
        rank, rank_limit: effective rank of the embeddings, and the most it could be, min(N, d).
        untrained_rank: the same of the untrained network.
        gain: interval of the kNN top-1 gain over the untrained network (low, mean, high), 0 to 1.
        unmeasured: why there is no gain, in words.
        before: what to call that network: "starting" where it had another's weights.
        without_labels: what was measured in place of a gain.
    """

    finite: bool
    first_loss: float | None = None
    last_loss: float | None = None
    loss_minimum: float | None = None
    spread: float | None = None
    rank: float | None = None
    rank_limit: int | None = None
    untrained_rank: float | None = None
    gain: tuple[float, float, float] | None = None
    unmeasured: str | None = None
    before: str = "untrained"
    without_labels: WithoutLabels | None = None

    @property
    def rank_bound(self) -> float | None:
        """Effective rank below which few directions are left; None where no rank was taken."""
        if self.rank_limit is None:
            return None
        of_untrained = LOW_RANK_OF_UNTRAINED * (self.untrained_rank or 0.0)
        few = min(LOW_RANK, self.rank_limit / 2)
        return max(LOW_RANK_SHARE * self.rank_limit, of_untrained, few)


def judge(evidence: Evidence) -> tuple[Verdict, str]:
    """The verdict, and the evidence that decided it in words."""
    if not evidence.finite:
        return "diverged", "the loss or the weights are not finite"
    if (sign := _collapse(evidence)) is not None:
        return "collapsed", sign
    if evidence.gain is None:
        return _judge_without_labels(evidence)
    low, mean, high = (100 * value for value in evidence.gain)
    interval = f"95%: {low:+.1f} to {high:+.1f}"
    text = f"kNN gains {mean:+.1f} points on the {evidence.before} network ({interval})"
    if low > 0:
        return "learned", text
    return ("worse" if high < 0 else "no-gain"), text


def _judge_without_labels(e: Evidence) -> tuple[Verdict, str]:
    """Of a run that did not collapse by its rank: whether its views bear that out."""
    why, found = e.unmeasured or "no labels", e.without_labels
    if found is None or e.rank is None or e.rank_bound is None or math.isnan(e.rank):
        return "undetermined", f"{why}, so nothing to compare with the {e.before} network"
    before, now = found.untrained, found.trained
    last = found.rank_course[-1][0] if found.rank_course else 0
    middle = next((rank for step, rank in found.rank_course if 2 * step >= last), e.rank)
    if e.rank < STILL_FALLING * middle:
        fall = f"from {middle:.1f} in the middle of the run to {e.rank:.1f}"
        return "undetermined", f"the effective rank was still falling, {fall}; {why}"
    if e.rank < e.rank_bound:
        rank = f"effective rank {e.rank:.1f} of {e.rank_limit}"
        return "undetermined", f"few directions are in use: {rank}; {why}"
    if now.lidar < max(LOW_LIDAR_SHARE * found.lidar_limit, LOW_RANK):
        lidar = f"LiDAR {now.lidar:.1f} of {found.lidar_limit} ({e.before}: {before.lidar:.1f})"
        return "undetermined", f"few directions tell images apart: {lidar}; {why}"
    if found.shared_gain[0] <= 0:
        low, mean, high = (100 * value for value in found.shared_gain)
        gain = f"{mean:+.1f} points on the {e.before} network (95%: {low:+.1f} to {high:+.1f})"
        return "undetermined", f"views share no more neighbours: {gain}; {why}"
    seen = "rank, LiDAR and neighbours across views show no collapse"
    return "no-collapse-seen", f"{seen}; {why}, so what it learned is open"


def _collapse(e: Evidence) -> str | None:
    if e.spread is not None and e.spread < POINT_SPREAD:
        return f"std x sqrt(d) is {e.spread:.3f}: all embeddings point the same way"
    bound = e.rank_bound
    if e.rank is None or bound is None or not e.rank < bound:  # NaN is not low
        return None
    if e.rank >= max(bound / 2, LOW_RANK) and e.gain is not None and e.gain[0] > CLEAR_GAIN:
        return None
    if e.untrained_rank is not None and e.rank >= e.untrained_rank:
        return None  # few directions from the start: nothing fell in
    if not _loss_went_down(e):
        return None
    before = "" if e.untrained_rank is None else f" ({e.before}: {e.untrained_rank:.1f})"
    loss = "" if e.last_loss is None else f" while the loss fell to {e.last_loss:.3f}"
    return f"effective rank {e.rank:.1f} of {e.rank_limit}{before}{loss}"


def _loss_went_down(e: Evidence) -> bool:
    if e.first_loss is None or e.last_loss is None or e.loss_minimum is None:
        return True  # nothing speaks against it
    left, way = e.last_loss - e.loss_minimum, e.first_loss - e.loss_minimum
    near = left <= LOSS_NEAR * abs(e.loss_minimum)
    return near or left <= (1 - LOSS_DONE) * way


def paired_gain(correct: Tensor, baseline: Tensor) -> tuple[float, float, float]:
    """95% interval (low, mean, high) of the gain in accuracy, paired by test image.

    The normal interval of the mean of d in -1 to 1; it covers the choice of test images, not that
    of the seed. `correct` and `baseline` are [N] bool, or shares, of the same images, N >= 2.
    """
    d = correct.double() - baseline.double()
    mean = float(d.mean())
    half = 1.959964 * float(d.std(correction=1)) / math.sqrt(len(d))
    return mean - half, mean, mean + half
