"""Signs of life and of collapse, looked at while the network trains.

Looking draws no random number and leaves BN statistics and module modes as they were, so that runs
with and without it end with the same weights.
"""

from __future__ import annotations

from simsiam_zoo.evaluation.features import extract, frozen
from simsiam_zoo.evaluation.geometry import effective_rank
from simsiam_zoo.evaluation.knn import KnnProtocol
from simsiam_zoo.training.record import Row
from simsiam_zoo.training.setup import Setup, centre_views, evenly, monitor_ids

QUERIES = 512
"""Test images whose class the kNN check predicts, out of `evaluation.rank_samples` neighbours."""


def look(setup: Setup) -> Row:
    """Effective rank of z, and kNN top-1 where there are labels, on fixed subsets.

    Training images give the rank and are kNN's neighbours, test images are its queries. Nothing of
    the training depends on what is seen here.
    """
    if setup.recipe.data.stream:  # no image can be found again
        return {}
    siamese, runtime, test = setup.siamese, setup.runtime, setup.dataset.test
    backbone = {"backbone": frozen(siamese.backbone, runtime)}
    encoders = {"z": frozen(siamese, runtime, siamese.encode), **backbone}
    bank = extract(centre_views(setup, setup.dataset.train, monitor_ids(setup)), encoders)
    row: Row = {"effective_rank": effective_rank(bank.by_encoder["z"])}
    if test is not None and setup.classes is not None:
        queries = extract(centre_views(setup, test, evenly(len(test), QUERIES)), backbone)
        found = KnnProtocol()(bank.of("backbone"), queries.of("backbone"), setup.classes)
        row[f"{found.protocol} {len(queries.labels)} by {len(bank.labels)}"] = found.top1
    return row
