"""What a run that did not learn may try next, by its own figures and its recipe.

`RULES` are tried in their order. Each says what was seen, with the figure, what it may mean, and
which flags to train with. A part is known by what it does, never by its name. Nothing here changes
a figure or a verdict.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsiam_zoo.errors import ZooError
from simsiam_zoo.evaluation.verdict import Evidence
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.optim import REFERENCE_BATCH
from simsiam_zoo.training.measuring import RAW, TRAINED
from simsiam_zoo.training.run_folder import MetricsRow
from simsiam_zoo.training.wiring import Wiring

FEW_FOR_BN = 32
"""Images below which BN's statistics may be too rough: half of the paper's smallest batch."""

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


@dataclass(frozen=True)
class Facts:
    """What the rules see of a run. `top1`: by the verdict's kNN, network → share."""

    verdict: str
    recipe: Recipe
    evidence: Evidence
    rows: Sequence[MetricsRow]
    steps: int
    wiring: Wiring
    top1: Mapping[str, float]


def _stop_gradient(f: Facts) -> str | None:
    if not f.wiring.target_gradient or f.wiring.contrasts:
        return None
    return (
        "gradient flows into the targets: without a stop-gradient the paper's SimSiam collapses"
        " (section 4.1), so this may be what the method does and no fault of the run"
    )


def _no_predictor(f: Facts) -> str | None:
    if f.wiring.predicts or f.wiring.contrasts:
        return None
    return (
        "there is no predictor, p is z: the paper's SimSiam without one does not learn either"
        " (table 1 a), so this may be what the method does and no fault of the run"
    )


def _fixed_predictor(f: Facts) -> str | None:
    if not f.wiring.predicts or f.wiring.predictor_trained or f.wiring.contrasts:
        return None
    return (
        "the predictor is never trained: the paper's SimSiam does not learn so either (table 1 b),"
        " so this may be what the method does and no fault of the run"
    )


def _projector_bn(f: Facts) -> str | None:
    if f.wiring.projector_bn is not False:
        return None
    return (
        "the projector has no BN: the paper has 34.6 % without BN in its heads, and 68.1 % with it"
        " (table 3)"
    )


def _bn_batch(f: Facts) -> str | None:
    if not 0 < f.wiring.bn_batch < FEW_FOR_BN:
        return None
    return (
        f"BN's statistics are over {f.wiring.bn_batch} images: they may be too rough; the paper's"
        " smallest batch is 64 (table 2)"
    )


def _larger_batch(f: Facts) -> str:
    training = f.recipe.training
    flags = f"--batch-size {max(64, training.batch_size)}"
    return f"{flags} --set training.accumulate=1" if training.accumulate > 1 else flags


def _restored(kind: str, key: str = "") -> Callable[[Facts], str | None]:
    """Flags that give a part what the recipe's preset has for it; None where that is the same.

    `key`: of the same component, this parameter alone.
    """

    def flags(f: Facts) -> str | None:
        try:
            preset = Recipe.make(f.recipe.preset, measure=False)
        except ZooError:  # it may have been a plugin's, which is gone
            return None
        own, theirs = getattr(f.recipe, kind), getattr(preset, kind)
        if own == theirs:
            return None
        known = {p.name: p for p in preset.part(kind).entry.component.params}
        given = {
            name: known[name].spell(value)
            for name, value in theirs.params.items()
            if value != known[name].default or name == key
        }
        if own.name == theirs.name and key in given:
            return f"--set {kind}.{key}={given[key]}"
        spec = ",".join(f"{name}={text}" for name, text in given.items())
        return f"--{kind} {shlex.quote(f'{theirs.name}:{spec}' if spec else theirs.name)}"

    return flags


def _smaller_lr(f: Facts) -> str:
    return f"--lr {f.recipe.optim.lr / 4:.3g}"


def _larger_lr(f: Facts) -> str:
    return f"--lr {10 * f.recipe.optim.lr:.3g}"


def _peak_lr(f: Facts) -> str:
    lr, batch = f.recipe.optim.lr, f.recipe.training.batch_size
    return (
        f"an lr of {lr * batch / REFERENCE_BATCH:.3g} (base {lr:g} x {batch} / {REFERENCE_BATCH})"
    )


def _not_finite(f: Facts) -> str:
    return f"not finite by step {f.steps} at {_peak_lr(f)}: that may be too high"


def _rank_fell(f: Facts) -> str | None:
    e = f.evidence
    limit = e.rank_bound or 0.0
    if e.untrained_rank is not None and e.untrained_rank < limit:
        return None  # it did not fall: images that are alike, say
    low = (row for row in f.rows if row.get("effective_rank", math.inf) < limit)
    if (first := next(low, None)) is None:
        return None
    before = "" if e.untrained_rank is None else f" from {e.untrained_rank:.1f} ({e.before})"
    return (
        f"the effective rank fell{before} to {first['effective_rank']:.1f} by epoch"
        f" {first['epoch']} at {_peak_lr(f)}: that may be too high for this backbone"
    )


def _alike(row: MetricsRow) -> float:
    """Squared distance of two views of an image, as a share of that of two views of any images.

    Embeddings with std s / sqrt(d) are 2 s^2 apart in the mean (`evaluation.geometry`).
    """
    std = row.get("std_sqrt_d")
    return float(row[VIEWS] / (2 * std**2)) if std and VIEWS in row else math.nan


def _weak_views(f: Facts) -> str | None:
    share = _alike(f.rows[0]) if f.rows else math.nan
    if not share < ALIKE:
        return None
    pixels, trained = f.top1.get(RAW, 0.0), f.top1.get(TRAINED, 0.0)
    more = f", and raw pixels have {pixels:.1%} by kNN, the network {trained:.1%}"
    return (
        f"two views of an image are {share:.0%} as far apart as those of two images before any"
        f" training{more if pixels > trained else ''}: the views may be too weak"
    )


def _strong_views(f: Facts) -> str | None:
    shares = [_alike(row) for row in f.rows if VIEWS in row and row["step"] > 0.75 * f.steps]
    share = sum(shares) / len(shares) if shares else math.nan
    way = _way(f.evidence)
    if not share > APART or not SLOW <= way < HALF or _still_falling(f) is not None:
        return None
    return (
        f"two views of an image are still {share:.0%} as far apart as those of two images, and the"
        f" loss stands at {f.evidence.last_loss:.3f}: the views may be too strong"
    )


def _crop(weaker: bool) -> Callable[[Facts], str | None]:
    """Flags for crops of a larger or a smaller part, where the augmentation has a `min_scale`."""

    def flags(f: Facts) -> str | None:
        least = f.recipe.augmentation.params.get("min_scale")
        if not isinstance(least, float):
            return None
        changed = (1 + least) / 2 if weaker else least / 2
        return f"--set augmentation.min_scale={changed:.2g}"

    return flags


def _still_falling(f: Facts) -> str | None:
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
    way, fall = _way(e), (then - now) / (e.first_loss - e.loss_minimum)
    if not (fall > FALL or (way >= SLOW and fall > FALL_GONE * way)):
        return None
    return (
        f"the loss was still falling, from {then:.3f} to {now:.3f} in the last quarter of"
        f" {f.steps:,} steps: they may be too few"
    )


def _slow(f: Facts) -> str | None:
    if not _way(f.evidence) < SLOW or _still_falling(f) is not None:
        return None
    return (
        f"the loss went no further than from {f.evidence.first_loss:.3f} to"
        f" {f.evidence.last_loss:.3f}, at {_peak_lr(f)}: that may be too low"
    )


def _way(e: Evidence) -> float:
    """Share of the way from the first loss to its minimum that the loss went; NaN: not known."""
    if e.first_loss is None or e.last_loss is None or e.loss_minimum is None:
        return math.nan
    whole = e.first_loss - e.loss_minimum
    return (e.first_loss - e.last_loss) / whole if whole > 0 else math.nan


def _more_epochs(f: Facts) -> str:
    return f"--epochs {3 * f.recipe.training.epochs}"


def _decayed_predictor(f: Facts) -> str | None:
    rates = [row["lr_predictor"] for row in f.rows if row.get("lr_predictor") is not None]
    if not f.wiring.predictor_trained or not rates or rates[-1] > max(rates) / 10:
        return None
    return (
        f"the predictor's lr fell from {max(rates):.3g} to {rates[-1]:.3g}: the paper keeps it"
        " constant (68.1 % against 67.7 %, table 1 c)"
    )


def _constant_predictor(f: Facts) -> str:
    return "--set optim.parts.predictor.schedule=constant"


@dataclass(frozen=True)
class Rule:
    """One piece of advice.

    Args:
        verdicts: those that it may be given for.
        reason: what was seen and what it may mean; None: it was not seen.
        flags: what to train with instead; None: nothing that is known here.
        stated: the recipe itself leaves out what the method rests on; nothing else is then said.
    """

    name: str
    verdicts: tuple[str, ...]
    reason: Callable[[Facts], str | None]
    flags: Callable[[Facts], str | None]
    stated: bool = False


FAILED = ("collapsed", "no-gain", "worse")
RULES = (
    Rule("stop-gradient", FAILED, _stop_gradient, _restored("gradient"), stated=True),
    Rule("no predictor", FAILED, _no_predictor, _restored("predictor"), stated=True),
    Rule("fixed predictor", FAILED, _fixed_predictor, _restored("predictor"), stated=True),
    Rule("not finite", ("diverged",), _not_finite, _smaller_lr),
    Rule("projector BN", (*FAILED, "diverged"), _projector_bn, _restored("projector", "norm")),
    Rule("BN batch", (*FAILED, "diverged"), _bn_batch, _larger_batch),
    Rule("rank fell", FAILED, _rank_fell, _smaller_lr),
    Rule("weak views", ("no-gain", "worse"), _weak_views, _crop(weaker=False)),
    Rule("strong views", ("no-gain", "worse"), _strong_views, _crop(weaker=True)),
    Rule("steps", ("no-gain", "worse"), _still_falling, _more_epochs),
    Rule("slow", ("no-gain", "worse"), _slow, _larger_lr),
    Rule("predictor lr", FAILED, _decayed_predictor, _constant_predictor),
)


def command(folder: Path, flags: str) -> str:
    """The command that trains as the run in `folder` did, but for these flags."""
    return f"simsiam-zoo train --recipe {shlex.quote(str(folder / 'recipe.toml'))} {flags}"


def advice_lines(advice: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    """Each reason, and after it the command, as lines of text."""
    lines = []
    for each in advice:
        lines.append(each["reason"])
        lines += [f"  {command(folder, each['flags'])}"] if each["flags"] else []
    return lines


def advice_for(
    recipe: Recipe,
    result: Mapping[str, Any],
    evidence: Evidence,
    rows: Sequence[MetricsRow],
    wiring: Wiring,
) -> list[dict[str, str | None]]:
    """What `result.json` says under `advice`, the likeliest first: `rule`, `reason`, `flags`."""
    if recipe.change and result["verdict"] != "diverged":
        return []  # its figures are of more than one set-up, and it asks on purpose
    top1 = {
        figure["network"]: figure["top1"]
        for figure in reversed(result["figures"])  # of several k the first, the verdict's, is kept
        if figure["protocol"].startswith("knn (")
    }
    facts = Facts(result["verdict"], recipe, evidence, rows, result["steps"], wiring, top1)
    found = [
        (rule, reason)
        for rule in RULES
        if facts.verdict in rule.verdicts and (reason := rule.reason(facts)) is not None
    ]
    stated = [each for each in found if each[0].stated]
    return [
        {"rule": rule.name, "reason": reason, "flags": rule.flags(facts)}
        for rule, reason in stated or found
    ]
