"""What became of a run: rules on evidence, never on names.

The rules are tried in this order, and each says which evidence decided it:

diverged      the loss or the weights stopped being finite
collapsed     the embeddings shrank to (nearly) a point or a few directions while the loss went down
undetermined  there is nothing to tell more by: no labels, one class, one test image
learned       the paired 95% interval of the kNN gain over the untrained network lies above 0
worse         it lies below 0
no-gain       none of these
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Verdict = Literal["diverged", "collapsed", "undetermined", "learned", "worse", "no-gain"]

MEASURED_ON = "mnist-5k (d = 512), digits (d = 128, 512, 2048), Fashion-MNIST (d = 512)"
"""Where the bounds below were found and tried: elsewhere they are a guess. In `result.json`."""

POINT_SPREAD = 0.1
"""std x sqrt(d) below which all embeddings point the same way. Healthy runs measured: 0.8 to 1."""

LOW_RANK_SHARE, LOW_RANK_OF_UNTRAINED, LOW_RANK = 0.02, 0.04, 3.0
"""Effective rank below which few directions are left: as a share of the most it could be, as a
share of the untrained network's, and however narrow the embedding is. The bound is the highest.

The second one says more where the embedding is narrow: at d = 128 a collapse leaves 3 directions.
`docs/verdicts.md` has what was measured.
"""

CLEAR_GAIN = 0.05
"""kNN gain over the untrained network, by the low end of its interval, that a low rank does not
outweigh unless it is below half of the bound, or `LOW_RANK`: few directions may hold what classes
need (Fashion-MNIST: rank 10.1 of 512, a gain of 7 to 9 points), and a collapse gains nothing.
"""

LOSS_DONE, LOSS_NEAR = 0.5, 0.1
"""Share of the way from the first loss to the minimum after which the loss counts as gone down; or
it is near the minimum, by a share of the minimum's size. A network that cannot solve its task
stays where it began (the paper's fixed random predictor); the loss of a collapse falls.
"""


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

    @property
    def rank_bound(self) -> float | None:
        """Effective rank below which few directions are left; None where no rank was taken."""
        if self.rank_limit is None:
            return None
        of_untrained = LOW_RANK_OF_UNTRAINED * (self.untrained_rank or 0.0)
        return max(LOW_RANK_SHARE * self.rank_limit, of_untrained, LOW_RANK)


def judge(evidence: Evidence) -> tuple[Verdict, str]:
    """The verdict, and the evidence that decided it in words."""
    if not evidence.finite:
        return "diverged", "the loss or the weights are not finite"
    if (sign := _collapse(evidence)) is not None:
        return "collapsed", sign
    if evidence.gain is None:
        reason = evidence.unmeasured or "no labels"
        return "undetermined", f"{reason}, so nothing to compare with the {evidence.before} network"
    low, mean, high = (100 * value for value in evidence.gain)
    interval = f"95%: {low:+.1f} to {high:+.1f}"
    text = f"kNN gains {mean:+.1f} points on the {evidence.before} network ({interval})"
    if low > 0:
        return "learned", text
    return ("worse" if high < 0 else "no-gain"), text


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

    The normal interval of the mean of d in {-1, 0, 1}; it covers the choice of test images, not
    that of the seed. `correct` and `baseline` are [N] bool of the same test images, N >= 2.
    """
    d = correct.double() - baseline.double()
    mean = float(d.mean())
    half = 1.959964 * float(d.std(correction=1)) / math.sqrt(len(d))
    return mean - half, mean, mean + half
