"""The end of a run: measure it, judge it, write down what it leaves behind."""

from __future__ import annotations

import itertools
import time
from typing import Any

import torch

from simsiam_zoo.evaluation.features import Encoder, extract, frozen, grey_once, raw_pixels
from simsiam_zoo.evaluation.geometry import effective_rank
from simsiam_zoo.evaluation.knn import KnnProtocol
from simsiam_zoo.evaluation.protocol import EvaluationProtocol, Figure
from simsiam_zoo.evaluation.verdict import Evidence, judge, paired_gain
from simsiam_zoo.siamese import Siamese, parameter_counts
from simsiam_zoo.training.curves import draw_curves
from simsiam_zoo.training.export import save_backbone
from simsiam_zoo.training.record import Record, Row
from simsiam_zoo.training.screen import Screen
from simsiam_zoo.training.setup import (
    Setup,
    build_siamese,
    centre_views,
    monitor_ids,
    to_device,
    train_loader,
)

FORMAT = 1
CALIBRATION_BATCHES = 50
TRAINED, UNTRAINED, RAW = "trained network", "untrained network", "raw pixels"


def conclude(setup: Setup, record: Record, screen: Screen, elapsed: float) -> dict[str, Any]:
    """Evaluate the trained network, judge the run, and write everything but the checkpoints.

    Args:
        setup, record: the run, its steps done.
        screen: told what is going on.
        elapsed: seconds spent training.

    Returns:
        What `result.json` holds.
    """
    began = time.monotonic()
    screen.say("evaluating")
    untrained = untrained_network(setup)
    rank = embedding_rank(setup, setup.siamese)
    figures, gain = measure(setup, untrained)
    losses = [row["loss"] for row in record.rows if "loss" in row]
    evidence = Evidence(
        finite=True,
        first_loss=losses[0],
        last_loss=late_mean(record.rows, "loss", setup.steps),
        loss_minimum=getattr(setup.siamese.loss, "minimum", None),
        spread=late_mean(record.rows, "std_sqrt_d", setup.steps),
        rank=rank,
        rank_limit=None if rank is None else min(setup.siamese.dim, len(monitor_ids(setup))),
        untrained_rank=embedding_rank(setup, untrained),
        gain=gain,
    )
    verdict, reason = judge(evidence)
    epochs = setup.recipe.training.epochs
    if rank is not None:
        last = {"step": setup.steps, "epoch": epochs, "effective_rank": rank}
        if last not in record.rows:  # it is there if the run was cut short here the last time
            record.write(last)
    result = {
        "format": FORMAT,
        "verdict": verdict,
        "reason": reason,
        "figures": [as_row(network, figure) for network, figure in figures],
        "evidence": {
            "first_loss": evidence.first_loss,
            "last_loss": evidence.last_loss,
            "loss_minimum": evidence.loss_minimum,
            "std_sqrt_d": evidence.spread,
            "effective_rank": evidence.rank,
            "effective_rank_limit": evidence.rank_limit,
            "untrained_effective_rank": evidence.untrained_rank,
            "knn_gain_interval": None if gain is None else list(gain),
        },
        "identity": setup.identity,
        "seed": setup.recipe.training.seed,
        "steps": setup.steps,
        "damaged_images": len(record.damaged),
        "parameters": parameter_counts(setup.siamese),
        "seconds": {
            "training": round(elapsed, 1),
            "evaluation": round(time.monotonic() - began, 1),
        },
    }
    save_backbone(setup, record.folder / "backbone.safetensors")
    draw_curves(record.rows, setup.recipe, str(verdict), record.folder / "curves.png")
    record.finish(result)
    return result


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
    draw_curves(record.rows, setup.recipe, str(verdict), record.folder / "curves.png")
    record.finish(result)


def untrained_network(setup: Setup) -> Siamese:
    """The network at its initialisation, with BN statistics of training views.

    Without these its features would be those of no network that anybody would use, and a run that
    learned nothing would beat it by its BN statistics alone.
    """
    untrained = build_siamese(setup.recipe, setup.plan, setup.runtime)
    loaded = train_loader(setup, workers=0).batches()
    views = (to_device(setup, each) for each in itertools.islice(loaded, CALIBRATION_BATCHES))
    with setup.runtime.autocast():
        torch.optim.swa_utils.update_bn(views, untrained)
    return untrained


def measure(
    setup: Setup, untrained: Siamese
) -> tuple[list[tuple[str, Figure]], tuple[float, float, float] | None]:
    """Every protocol on the trained network and, if the recipe wants them, on the baselines.

    Returns:
        (network, figure) pairs, and the paired interval of the kNN gain over the untrained
        network; no pairs and None where there are no labels to measure by.
    """
    classes = setup.classes
    if setup.dataset.test is None or classes is None:
        return [], None
    # The verdict needs the untrained network, whether or not its figures are shown.
    encoders: dict[str, Encoder] = {
        TRAINED: frozen(setup.siamese.backbone, setup.runtime),
        UNTRAINED: frozen(untrained.backbone, setup.runtime),
    }
    shown = [TRAINED]
    if setup.recipe.evaluation.baselines:
        encoders[RAW] = raw_pixels
        shown = [TRAINED, UNTRAINED, RAW]
    train = extract(centre_views(setup, setup.dataset.train), encoders)
    # A figure on fewer test images than there are is another figure; a bank may miss one.
    test = extract(centre_views(setup, setup.dataset.test, whole=True), encoders)
    if RAW in encoders:
        train.by_encoder[RAW] = grey_once(train.by_encoder[RAW])
        test.by_encoder[RAW] = grey_once(test.by_encoder[RAW])
    protocols: list[EvaluationProtocol] = [p.create() for p in setup.recipe.protocols()]
    figures = [
        (network, protocol(train.of(network), test.of(network), classes))
        for network in shown
        for protocol in protocols
    ]
    knn = KnnProtocol()
    after, before = (
        knn(train.of(network), test.of(network), classes) for network in (TRAINED, UNTRAINED)
    )
    return figures, paired_gain(after.correct, before.correct)


def embedding_rank(setup: Setup, siamese: Siamese) -> float | None:
    """Effective rank of z of the images that the monitor looks at; None where it reads a stream."""
    if setup.recipe.data.stream:
        return None
    encode = frozen(siamese, setup.runtime, siamese.encode)
    views = centre_views(setup, setup.dataset.train, monitor_ids(setup))
    return effective_rank(extract(views, {"z": encode}).by_encoder["z"])


def late_mean(rows: list[Row], key: str, steps: int) -> float:
    """Mean of a figure over the rows of the run's last tenth."""
    late: list[float] = [row[key] for row in rows if key in row and row["step"] > 0.9 * steps]
    return sum(late) / len(late)


def as_row(network: str, figure: Figure) -> dict[str, Any]:
    """A figure as `result.json` has it."""
    return {
        "network": network,
        "protocol": figure.protocol,
        "protocol_version": figure.version,
        "top1": round(figure.top1, 6),
        "test_images": len(figure.correct),
        **figure.details,
    }
