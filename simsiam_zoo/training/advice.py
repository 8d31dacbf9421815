"""What a run that did not learn may try next, by its own figures and its recipe.

Each rule says what was seen, with the figure, what it may mean, and which flags to train with;
`docs/verdicts.md` lists them. A part is known by what it does, never by its name. Nothing here
changes a figure or a verdict.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsiam_zoo.errors import ZooError
from simsiam_zoo.evaluation.verdict import Evidence
from simsiam_zoo.metrics import RAW, TRAINED
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import train_command
from simsiam_zoo.runtime.optim import REFERENCE_BATCH
from simsiam_zoo.training.run_folder import MetricsRow
from simsiam_zoo.training.wiring import Wiring

FEW_FOR_BN = 32
"""Images below which BN's statistics may be too rough: half of the paper's smallest batch."""

SMALLEST = 64
"""The paper's smallest batch."""

VIEWS = "alignment_1_2"
ALIKE, APART = 0.5, 0.7
"""How far apart views are, as a share of how far images are: below the first before any training,
or above the second at the end. Runs of digits and mnist-5k that learned: 0.7 to 0.9 before, 0.05 to
0.3 after. Digits with views that are hardly changed: 0.2 before; with views that have little in
common: 0.9 after.
"""

FALL, FALL_GONE, SLOW, HALF = 0.05, 0.1, 0.1, 0.5
"""Shares of the loss's way to its minimum. A fall in the last quarter of a run that is no end: of
the whole way (runs of mnist-5k that learned: 0.02 to 0.05), or of the way that the loss went (at
most 0.05 there; views too strong: 0.06). A loss that hardly moved; a loss that stopped half-way.
"""

FEW_STEPS = 100
"""Steps in which no lr takes the loss far: fewer say nothing of the lr."""


Advice = tuple[str, str, str | None]
"""The rule's name; what was seen and what it may mean; flags to train with, or None."""


@dataclass(frozen=True)
class Facts:
    """What the rules see of a run. `top1`: by the verdict's kNN, network → share."""

    recipe: Recipe
    evidence: Evidence
    rows: Sequence[MetricsRow]
    steps: int
    wiring: Wiring
    top1: Mapping[str, float]

    @property
    def peak_lr(self) -> str:
        """The lr in words, as it was scaled by the batch."""
        lr, batch = self.recipe.optim.lr, self.recipe.training.batch_size
        scaled = f"{lr * batch / REFERENCE_BATCH:.3g}"
        return f"an lr of {scaled} (base {lr:g} x {batch} / {REFERENCE_BATCH})"

    @property
    def images(self) -> float:
        """Those of an epoch, which are whole batches; infinite where no epoch was seen."""
        epochs = [row["step"] / row["epoch"] for row in self.rows if row.get("epoch")]
        return self.recipe.training.batch_size * min(epochs, default=math.inf)

    @property
    def way(self) -> float:
        """Share of the way from the first loss to its minimum that the loss went; NaN: unknown."""
        e = self.evidence
        if e.first_loss is None or e.last_loss is None or e.loss_minimum is None:
            return math.nan
        whole = e.first_loss - e.loss_minimum
        return (e.first_loss - e.last_loss) / whole if whole > 0 else math.nan


def advice_for(
    recipe: Recipe,
    result: Mapping[str, Any],
    evidence: Evidence,
    rows: Sequence[MetricsRow],
    wiring: Wiring,
) -> list[dict[str, str | None]]:
    """What `result.json` says under `advice`, the likeliest first: `rule`, `reason`, `flags`.

    Where the recipe itself leaves out what the method rests on, nothing else is said.
    """
    verdict = result["verdict"]
    if recipe.change and verdict != "diverged":
        return []  # its figures are of more than one set-up, and it asks on purpose
    top1 = {
        figure["network"]: figure["top1"]
        for figure in reversed(result["figures"])  # of several k the first, the verdict's, is kept
        if figure["protocol"].startswith("knn (")
    }
    facts = Facts(recipe, evidence, rows, result["steps"], wiring, top1)
    found: list[Advice] = []
    if verdict == "diverged":
        found = [*_on_divergence(facts), *_on_norms(facts)]
    elif verdict in ("collapsed", "no-gain", "worse"):
        found = [*_on_method(facts)]
        if not found:
            found = [*_on_norms(facts), *_on_rank(facts)]
            found += [] if verdict == "collapsed" else [*_on_views(facts), *_on_loss(facts)]
            found += _on_predictor_lr(facts)
    return [{"rule": rule, "reason": reason, "flags": flags} for rule, reason, flags in found]


def _on_method(f: Facts) -> Iterator[Advice]:
    """What the method rests on and the recipe leaves out, as the paper's ablations do."""
    wiring, meant = f.wiring, "so this may be what the method does and no fault of the run"
    if wiring.contrasts:
        return
    if wiring.target_gradient:
        reason = (
            "gradient flows into the targets: without a stop-gradient the paper's SimSiam collapses"
            f" (section 4.1), {meant}"
        )
        yield "stop-gradient", reason, _restored(f.recipe, "gradient")
    if not wiring.predicts:
        reason = (
            "there is no predictor, p is z: the paper's SimSiam without one does not learn either"
            f" (table 1 a), {meant}"
        )
        yield "no predictor", reason, _restored(f.recipe, "predictor")
    elif not wiring.predictor_trained:
        reason = (
            "the predictor is never trained: the paper's SimSiam does not learn so either"
            f" (table 1 b), {meant}"
        )
        yield "fixed predictor", reason, _restored(f.recipe, "predictor")


def _on_divergence(f: Facts) -> Iterator[Advice]:
    reason = f"not finite by step {f.steps} at {f.peak_lr}: that may be too high"
    yield "not finite", reason, _scaled_lr(f, 1 / 4)


def _on_norms(f: Facts) -> Iterator[Advice]:
    if f.wiring.projector_bn is False:
        reason = (
            "the projector has no BN: the paper has 34.6 % without BN in its heads, and 68.1 % with"
            " it (table 3)"
        )
        yield "projector BN", reason, _restored(f.recipe, "projector", "norm")
    if 0 < f.wiring.bn_batch < FEW_FOR_BN:
        training = f.recipe.training
        reason = f"BN's statistics are over {f.wiring.bn_batch} images: they may be too rough; the"
        if f.images < (batch := max(SMALLEST, training.batch_size)):
            yield "BN batch", f"{reason} data has too few for more", None
            return
        flags = f"--batch-size {batch}"
        flags += " --set training.accumulate=1" if training.accumulate > 1 else ""
        yield "BN batch", f"{reason} paper's smallest batch is {SMALLEST} (table 2)", flags


def _on_rank(f: Facts) -> Iterator[Advice]:
    e = f.evidence
    limit = e.rank_bound or 0.0
    if e.untrained_rank is not None and e.untrained_rank < limit:
        return  # it did not fall: images that are alike, say
    low = (row for row in f.rows if row.get("effective_rank", math.inf) < limit)
    if (first := next(low, None)) is not None:
        before = "" if e.untrained_rank is None else f" from {e.untrained_rank:.1f} ({e.before})"
        reason = (
            f"the effective rank fell{before} to {first['effective_rank']:.1f} by epoch"
            f" {first['epoch']} at {f.peak_lr}: that may be too high for this backbone"
        )
        yield "rank fell", reason, _scaled_lr(f, 1 / 4)


def _on_views(f: Facts) -> Iterator[Advice]:
    before = _alike(f.rows[0]) if f.rows else math.nan
    if before < ALIKE:
        pixels, trained = f.top1.get(RAW, 0.0), f.top1.get(TRAINED, 0.0)
        more = f", and raw pixels have {pixels:.1%} by kNN, the network {trained:.1%}"
        reason = (
            f"two views of an image are {before:.0%} as far apart as those of two images before any"
            f" training{more if pixels > trained else ''}: the views may be too weak"
        )
        yield "weak views", reason, _crop(f.recipe, weaker=False)
    late = [_alike(row) for row in f.rows if VIEWS in row and row["step"] > 0.75 * f.steps]
    after = sum(late) / len(late) if late else math.nan
    if after > APART and SLOW <= f.way < HALF and _still_falling(f) is None:
        reason = (
            f"two views of an image are still {after:.0%} as far apart as those of two images, and"
            f" the loss stands at {f.evidence.last_loss:.3f}: the views may be too strong"
        )
        yield "strong views", reason, _crop(f.recipe, weaker=True)


def _alike(row: MetricsRow) -> float:
    """Squared distance of two views of an image, as a share of that of two views of any images.

    Embeddings with std s / sqrt(d) are 2 s^2 apart in the mean (`evaluation.geometry`).
    """
    std = row.get("std_sqrt_d")
    return float(row[VIEWS] / (2 * std**2)) if std and VIEWS in row else math.nan


def _on_loss(f: Facts) -> Iterator[Advice]:
    if (falling := _still_falling(f)) is not None:
        yield "steps", falling, f"--epochs {3 * f.recipe.training.epochs}"
    elif f.way < SLOW:
        losses = f"from {f.evidence.first_loss:.3f} to {f.evidence.last_loss:.3f}"
        went = f"the loss went no further than {losses}"
        if f.steps < FEW_STEPS:
            reason = f"{went} in {f.steps:,} steps: they may be too few"
            yield "steps", reason, f"--epochs {10 * f.recipe.training.epochs}"
        else:
            yield "slow", f"{went}, at {f.peak_lr}: that may be too low", _scaled_lr(f, 10)


def _still_falling(f: Facts) -> str | None:
    """By how much the loss still fell in the last quarter, in words; None: it did not."""
    e = f.evidence
    losses = [(row["step"] / f.steps, row["loss"]) for row in f.rows if "loss" in row]
    last = [loss for done, loss in losses if done > 0.75]
    early = [each for each in losses if each[0] <= 0.75]
    before = [loss for done, loss in early if done > 0.5] or [loss for _, loss in early[-1:]]
    if e.first_loss is None or e.loss_minimum is None or not before or not last:
        return None
    if e.first_loss <= e.loss_minimum:
        return None
    then, now = (sum(part) / len(part) for part in (before, last))
    fall = (then - now) / (e.first_loss - e.loss_minimum)
    if not (fall > FALL or (f.way >= SLOW and fall > FALL_GONE * f.way)):
        return None
    return (
        f"the loss was still falling, from {then:.3f} to {now:.3f} in the last quarter of"
        f" {f.steps:,} steps: they may be too few"
    )


def _on_predictor_lr(f: Facts) -> Iterator[Advice]:
    rates = [row["lr_predictor"] for row in f.rows if row.get("lr_predictor") is not None]
    if f.wiring.predictor_trained and rates and rates[-1] <= max(rates) / 10:
        reason = (
            f"the predictor's lr fell from {max(rates):.3g} to {rates[-1]:.3g}: the paper keeps it"
            " constant (68.1 % against 67.7 %, table 1 c)"
        )
        yield "predictor lr", reason, "--set optim.parts.predictor.schedule=constant"


def _scaled_lr(f: Facts, factor: float) -> str:
    return f"--lr {factor * f.recipe.optim.lr:.3g}"


def _crop(recipe: Recipe, weaker: bool) -> str | None:
    """Flags for crops of a larger or a smaller part, where the augmentation has a `min_scale`."""
    least = recipe.augmentation.params.get("min_scale")
    if not isinstance(least, float):
        return None
    return f"--set augmentation.min_scale={(1 + least) / 2 if weaker else least / 2:.2g}"


def _restored(recipe: Recipe, kind: str, key: str = "") -> str | None:
    """Flags that give a part what the recipe's preset has for it; None where that is the same.

    `key`: of the same component, this parameter alone.
    """
    try:
        preset = Recipe.make(recipe.preset, measure=False)
    except ZooError:  # it may have been a plugin's, which is gone
        return None
    own, theirs = getattr(recipe, kind), getattr(preset, kind)
    if own == theirs:
        return None
    part = preset.part(kind)
    for param in part.entry.component.params:
        if own.name == theirs.name and param.name == key:
            return f"--set {kind}.{key}={param.spell(part.params[key])}"
    return f"--{kind} {shlex.quote(part.spec)}"


def command(folder: Path, flags: str) -> str:
    """The command that trains as the run in `folder` did, but for these flags."""
    return train_command(folder / "recipe.toml", flags)


def advice_lines(advice: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    """Each reason, and after it the command, as lines of text."""
    lines = []
    for each in advice:
        lines.append(each["reason"])
        lines += [f"  {command(folder, each['flags'])}"] if each["flags"] else []
    return lines
