"""Damaged images of a run: found by any rank, counted by all, put up with up to a share."""

from __future__ import annotations

from simsiam_zoo.data.batches import Damage
from simsiam_zoo.errors import DataError
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.record import Record
from simsiam_zoo.training.setup import Setup

LEAST_DAMAGED = 16
"""Damaged images that end no run, however small its data, unless `data.max_damaged` is 0."""


class DamageCount:
    """What was found, by every rank; the ranks exchange it when any of them has something new."""

    def __init__(self, setup: Setup, record: Record, progress: Progress) -> None:
        self._setup, self._record, self._progress = setup, record, progress
        self._untold: list[tuple[int, Damage]] = []
        self._known = set(record.damaged)

    def note(self, step: int, damaged: tuple[Damage, ...]) -> int:
        """Take in a batch of this rank's; returns how many are new and not told yet.

        Args:
            step: steps that were done before the batch.
            damaged: of that batch.
        """
        for damage in damaged:
            if damage.id not in self._known:
                self._known.add(damage.id)
                self._untold.append((step, damage))
        return len(self._untold)

    def exchange(self) -> bool:
        """List what any rank found; whether it is more than the recipe puts up with.

        All ranks have to call it at the same step.
        """
        for untold in distributed.collect(self._untold):
            for step, damage in untold:
                self._record.list_damaged(step, [damage])
                self._warn_once()
        self._untold = []
        share, found = self._setup.recipe.data.max_damaged, len(self._record.damaged)
        return found > (max(LEAST_DAMAGED, share * self._setup.plan.samples) if share else 0)

    def error(self) -> DataError:
        """That of a run that met too many."""
        folder, listed = self._record.folder, list(self._record.damaged.values())
        first = "".join(f"\n    {row['sample']}: {row['damage']}" for row in listed[:3])
        return DataError(
            f"{len(listed)} of {self._setup.plan.samples} training images are damaged so far, more"
            f" than data.max_damaged = {self._setup.recipe.data.max_damaged} puts up with. The"
            f" first:{first}",
            f"Restore the shards ({folder / 'damaged.jsonl'} lists all), or raise"
            f" data.max_damaged; --resume {folder} goes on.",
        )

    def _warn_once(self) -> None:
        if len(self._record.damaged) == 1:
            (row,) = self._record.damaged.values()
            self._progress.say(
                f"warning: {row['sample']}: {row['damage']}; replaced by the next good image of its"
                " batch, as any other will be (listed in"
                f" {self._record.folder / 'damaged.jsonl'})"
            )
