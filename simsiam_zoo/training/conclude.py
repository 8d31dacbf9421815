"""The end of a run: measure it, judge it, write down what it leaves behind."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.evaluation.augmented import AugmentedViews
from simsiam_zoo.evaluation.evaluate import as_row
from simsiam_zoo.evaluation.features import (
    Encoder,
    FeatureSplits,
    Split,
    extract,
    frozen,
    grey_once,
    raw_pixels,
)
from simsiam_zoo.evaluation.frozen_pass import refuse_changed, state_digest
from simsiam_zoo.evaluation.knn import KnnProtocol
from simsiam_zoo.evaluation.protocol import EvaluationProtocol, Score, is_collective
from simsiam_zoo.evaluation.verdict import Evidence, judge, paired_gain
from simsiam_zoo.model.siamese import Siamese, parameter_counts
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.collapse import CollapseWatch
from simsiam_zoo.training.curves import draw_curves
from simsiam_zoo.training.evidence import gather_evidence
from simsiam_zoo.training.export import save_backbone
from simsiam_zoo.training.monitor import embedding_rank
from simsiam_zoo.training.record import Record
from simsiam_zoo.training.setup import Setup, centre_batches, to_device
from simsiam_zoo.training.untrained import state_before, untrained_network

FORMAT = 1
TRAINED, RAW = "trained network", "raw pixels"


def conclude(setup: Setup, record: Record, progress: Progress, elapsed: float) -> dict[str, Any]:
    """Evaluate the trained network, judge the run, and write everything but the checkpoints.

    Args:
        setup, record: the run, its steps done.
        progress: told what is going on.
        elapsed: seconds spent training.

    Returns:
        What `result.json` holds.
    """
    began = time.monotonic()
    stopped = CollapseWatch(setup).stops(record.rows)
    step = stopped or setup.steps
    progress.say("evaluating")
    untrained = untrained_network(setup)
    rank = embedding_rank(setup, setup.siamese)
    figures, gain = measure(setup, untrained, progress)
    evidence = gather_evidence(
        setup,
        record.rows,
        step,
        rank=rank,
        untrained_rank=embedding_rank(setup, untrained),
        gain=gain,
    )
    verdict, reason = judge(evidence)
    # it is there if the run stopped at a look, or was cut short here the last time
    known = any(row["step"] == step and "effective_rank" in row for row in record.rows)
    if rank is not None and not known:
        record.write({"step": step, "epoch": step // setup.plan.steps, "effective_rank": rank})
    result = {
        "format": FORMAT,
        "verdict": verdict,
        "reason": reason,
        "figures": [{"network": network, **as_row(score)} for network, score in figures],
        "evidence": evidence_dict(evidence),
        "identity": setup.identity,
        "seed": setup.recipe.training.seed,
        "steps": step,
        "stopped_on_collapse": stopped,
        "damaged_images": len(record.damaged),
        "parameters": parameter_counts(setup.siamese),
        "seconds": {
            "training": round(elapsed, 1),
            "evaluation": round(time.monotonic() - began, 1),
        },
    }
    save_backbone(setup, record.folder / "backbone.safetensors")
    draw_curves(record.rows, setup.recipe, str(verdict), record.folder / "curves.svg")
    record.finish(result)
    return result


def evidence_dict(evidence: Evidence) -> dict[str, Any]:
    """The evidence as `result.json` has it."""
    return {
        "first_loss": evidence.first_loss,
        "last_loss": evidence.last_loss,
        "loss_minimum": evidence.loss_minimum,
        "std_sqrt_d": evidence.spread,
        "effective_rank": evidence.rank,
        "effective_rank_limit": evidence.rank_limit,
        "untrained_effective_rank": evidence.untrained_rank,
        "knn_gain_interval": None if evidence.gain is None else list(evidence.gain),
    }


def conclude_diverged(setup: Setup, record: Record, step: int) -> None:
    """Write the result of a run whose loss or weights stopped being finite."""
    verdict, reason = judge(Evidence(finite=False))
    result: dict[str, Any] = {
        "format": FORMAT,
        "verdict": verdict,
        "reason": f"{reason} by step {step}",
        "figures": [],
        "identity": setup.identity,
        "seed": setup.recipe.training.seed,
        "steps": step,
    }
    draw_curves(record.rows, setup.recipe, str(verdict), record.folder / "curves.svg")
    record.finish(result)


def measure(
    setup: Setup, untrained: Siamese, progress: Progress
) -> tuple[list[tuple[str, Score]], tuple[float, float, float] | None]:
    """Every protocol on the trained network and, if the recipe wants them, on the baselines.

    Returns:
        (network, figure) pairs, and the paired interval of the kNN gain over the untrained
        network; no pairs and None where there are no labels to measure by.
    """
    classes = setup.classes
    if setup.dataset.test is None or classes is None:
        return [], None
    # The verdict needs the untrained network, whether or not its figures are shown.
    before = f"{state_before(setup)} network"
    encoders: dict[str, Encoder] = {
        TRAINED: frozen(setup.siamese.backbone, setup.runtime),
        before: frozen(untrained.backbone, setup.runtime),
    }
    shown = [TRAINED]
    if setup.recipe.evaluation.baselines:
        encoders[RAW] = raw_pixels
        shown = [TRAINED, before, RAW]
    digest = state_digest(setup.siamese.backbone)
    train = features(setup, setup.dataset.train, encoders, progress, "training images")
    # A figure on fewer test images than there are is another figure; a bank may miss one.
    test = features(setup, setup.dataset.test, encoders, progress, "test images", whole=True)
    refuse_changed(setup.siamese.backbone, digest, f"backbone {setup.recipe.backbone.name}")
    protocols: list[EvaluationProtocol] = [p.create() for p in setup.recipe.protocols()]
    benches = {
        network: FeatureSplits(train.of(network), test.of(network), classes) for network in encoders
    }
    benches[TRAINED] = dataclasses.replace(
        benches[TRAINED],
        augmented=augmented_views(setup, encoders[TRAINED]),
        device=setup.runtime.device,
    )
    figures = [
        (network, figure)
        for network in shown
        for protocol in protocols
        if network == TRAINED or not is_collective(protocol)  # those train for many epochs
        for figure in protocol(benches[network])
    ]
    knn = KnnProtocol(k=20, t=0.1)
    gained, had = (knn(benches[network])[0].correct for network in (TRAINED, before))
    return figures, paired_gain(gained, had)


def augmented_views(setup: Setup, encode: Encoder) -> AugmentedViews | None:
    """Features of augmented training views; None of a stream, whose images have no ids."""
    data = setup.recipe.data
    if data.stream:
        return None
    return AugmentedViews(
        encode,
        setup.dataset.train,
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
        runtime=setup.runtime,
        seed=setup.recipe.training.seed,
        lanes=data.lanes,
        window=data.window,
    )


def features(
    setup: Setup,
    shards: ShardSet,
    encoders: dict[str, Encoder],
    progress: Progress,
    what: str,
    *,
    whole: bool = False,
) -> Split:
    """Features of all images of a split by each encoder; `whole` as for `centre_views`."""
    loader = centre_batches(setup, shards, whole=whole)
    loaded = progress.follow(loader, len(loader), f"features of {what}")
    split = extract((to_device(setup, each) for each in loaded), encoders)
    if RAW in encoders:
        split.by_encoder[RAW] = grey_once(split.by_encoder[RAW])
    return split
