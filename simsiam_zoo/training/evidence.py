"""What a run is judged by, gathered from its rows: the same at its end and on the way."""

from __future__ import annotations

from collections.abc import Sequence

from simsiam_zoo.evaluation.verdict import Evidence
from simsiam_zoo.model.siamese import Loss
from simsiam_zoo.training.record import Row
from simsiam_zoo.training.setup import Setup, monitor_ids
from simsiam_zoo.training.untrained import state_before


def gather_evidence(
    setup: Setup,
    rows: Sequence[Row],
    step: int,
    *,
    rank: float | None,
    untrained_rank: float | None = None,
    gain: tuple[float, float, float] | None = None,
) -> Evidence:
    """The evidence after `step` steps.

    Args:
        setup: the run.
        rows: of metrics.jsonl; later ones than `step` are not looked at.
        step: steps that were done.
        rank: effective rank of the embeddings then.
        untrained_rank, gain: as in `Evidence`.
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
        before=state_before(setup),
    )


def late_mean(rows: Sequence[Row], key: str, step: int) -> float | None:
    """Mean of a figure over the rows of the last tenth before `step`, or else the newest one.

    None where no row has it.
    """
    having = [row for row in rows if key in row]
    late: list[float] = [row[key] for row in having if row["step"] > 0.9 * step]
    late = late or [row[key] for row in having[-1:]]
    return sum(late) / len(late) if late else None
