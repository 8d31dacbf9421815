"""What is measured of a run: on the way, and at its end. Every rank takes part.

Measuring draws no random number and leaves BN statistics and module modes as they were, so that
runs with and without it end with the same weights.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from simsiam_zoo.data.inspection import why_unmeasurable
from simsiam_zoo.data.order import evenly
from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.evaluate import (
    Job,
    jobs_beside,
    jobs_of,
    measure,
    take_features,
)
from simsiam_zoo.evaluation.frozen_pass import (
    FrozenNetwork,
    FrozenPass,
    RawPixels,
    Transform,
    first_ranks_buffers,
)
from simsiam_zoo.evaluation.geometry import effective_rank
from simsiam_zoo.evaluation.knn import KnnProtocol
from simsiam_zoo.evaluation.protocol import FeatureSplits, Score, number_classes
from simsiam_zoo.evaluation.store import CachedFeatures
from simsiam_zoo.evaluation.target import component_text
from simsiam_zoo.evaluation.verdict import paired_gain
from simsiam_zoo.metrics import RAW, TRAINED, online_row
from simsiam_zoo.model.siamese import Siamese
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.batches import monitor_ids
from simsiam_zoo.training.run_folder import MetricsRow
from simsiam_zoo.training.setup import Setup

VERDICT_KNN = KnnProtocol(k=20, t=0.1)
"""What the verdict compares the trained network with the untrained one by."""


@dataclass(frozen=True)
class FinalScores:
    """What was measured at the end of a run.

    Args:
        scores: (network, score) pairs.
        gain, unmeasured: as in `Evidence`.
        refused: network, protocol and reason of what a protocol would not measure.
    """

    scores: Sequence[tuple[str, Score]] = ()
    gain: tuple[float, float, float] | None = None
    unmeasured: str | None = None
    refused: Sequence[dict[str, str]] = ()


class RunEvaluation:
    """The measuring of one run; features lie in its `folder` while they are needed."""

    def __init__(self, setup: Setup, folder: Path, progress: Progress | None = None) -> None:
        self._setup, self._store = setup, folder / "features"
        self._progress = progress or Progress()
        self._told: set[str] = set()
        self._used: list[CachedFeatures] = []
        self._jobs = jobs_of(TRAINED, setup.recipe.online_protocols())
        if self.unmeasurable is not None:
            self._say(f"no scores and no verdict on what is learned: {self.unmeasurable}")

    @cached_property
    def unmeasurable(self) -> str | None:
        """Why nothing can be measured on the run's data, in words; None where it can."""
        if self._setup.recipe.data.stream:
            return "a stream has no images to come back to"
        return why_unmeasurable(self._setup.dataset)

    def due(self, step: int) -> bool:
        """Whether the run is measured after `step` steps: at the end of each n-th epoch."""
        training, evaluation = self._setup.recipe.training, self._setup.recipe.evaluation
        chosen = evaluation.online_epochs
        every = max(1, math.ceil(training.epochs / 10)) if chosen == "auto" else chosen
        epoch, rest = divmod(step, self._setup.plan.steps)
        return bool(every) and rest == 0 and epoch % every == 0 and step < self._setup.steps

    def online(self) -> MetricsRow:
        """Effective rank of z, and the scores of `evaluation.online`, on fixed subsets."""
        rank = self.rank(self._setup.siamese)
        row: MetricsRow = {} if rank is None else {"effective_rank": rank}
        if not self._jobs or self.unmeasurable is not None:
            return row
        setup = self._setup
        assert setup.dataset.test is not None
        most = setup.recipe.evaluation.online_images
        network = FrozenNetwork(
            component_text(setup.recipe.part("backbone")), setup.siamese.backbone
        )
        with self._temporary(network) as frozen:
            train, test = (
                frozen.features(each, what, whole=False, ids=evenly(len(each), count))[0][0]
                for each, what, count in (
                    (setup.dataset.train, "training images", most),
                    (setup.dataset.test, f"{setup.dataset.measured_on} images", max(1, most // 2)),
                )
            )
            splits = FeatureSplits(train, test, 0, device=setup.runtime.device)
            splits, _ = number_classes(splits, setup.dataset.classes)
            results = measure(self._jobs, {TRAINED: splits})
        for job, scores in zip(self._jobs, results, strict=True):
            if isinstance(scores, InputError):
                self._say(f"not measured on the way: {job.name}: {scores.what}")
                continue
            for score in scores:
                counts = len(splits.test.labels), len(splits.train.labels)
                row |= online_row(score.protocol, score.top1, *counts)
        return row

    def rank(self, siamese: Siamese) -> float | None:
        """Effective rank of z of fixed training images; None where the run reads a stream."""
        if self._setup.recipe.data.stream:
            return None
        encoder = nn.Sequential(siamese.backbone, siamese.projector)
        z = self.monitored("z", encoder)
        return distributed.from_main(lambda: effective_rank(z))

    def monitored(self, name: str, encoder: nn.Module) -> Tensor:
        """What a network gives of the training images that are monitored, [N, D]; ranks meet."""
        with self._temporary(FrozenNetwork(name, encoder)) as frozen:
            ids = monitor_ids(self._setup)
            ((found, _),) = frozen.features(
                self._setup.dataset.train, "images for the rank", whole=False, ids=ids
            )
            return found.x

    def final(self, untrained: Siamese, before: str) -> FinalScores:
        """Every protocol on the trained network and, if the recipe wants them, the baselines.

        `before` is what to call the untrained network.
        """
        if self.unmeasurable is not None:
            return FinalScores(unmeasured=self.unmeasurable)
        setup, recipe = self._setup, self._setup.recipe
        name = component_text(recipe.part("backbone"))
        networks = {
            TRAINED: FrozenNetwork(name, setup.siamese.backbone),
            before: FrozenNetwork(name, untrained.backbone),
        }
        jobs = jobs_of(TRAINED, recipe.protocols())
        if recipe.evaluation.baselines:
            networks[RAW] = FrozenNetwork(RAW, RawPixels())
            for baseline in (before, RAW):
                jobs += jobs_beside(baseline, recipe.protocols())
        frozen = self._pass([*networks.values()], self._store, self._progress)
        with first_ranks_buffers(setup.siamese.backbone, untrained.backbone):
            splits, self._used, _ = take_features(frozen, [*networks], setup.dataset, recipe)
            found = measure(jobs, splits, self._progress)
        scores: list[tuple[str, Score]] = []
        refused: list[dict[str, str]] = []
        for job, result in zip(jobs, found, strict=True):
            if isinstance(result, InputError):
                where = {"network": job.network, "protocol": job.name, "reason": result.what}
                refused.append(where)
                self._say(f"{job.network}: {job.name} is not measured: {result.what}")
            else:
                scores += [(job.network, score) for score in result]
        gain, unmeasured = self._gain(scores, splits, before)
        return FinalScores(scores, gain, unmeasured, refused)

    def clean_up(self) -> None:
        """Delete the features: they are of no use once the result is written."""
        for entry in self._used:
            shutil.rmtree(entry.folder / "state", ignore_errors=True)
            entry.remove()

    def _gain(
        self, scores: list[tuple[str, Score]], splits: dict[str, FeatureSplits], before: str
    ) -> tuple[tuple[float, float, float] | None, str | None]:
        """The paired interval of the kNN gain, or why there is none; no score is taken twice."""
        k = min(VERDICT_KNN.ks[0], len(splits[TRAINED].train.labels))
        wanted = f"knn (k={k}, t={VERDICT_KNN.t:g})"
        right = {
            network: score.correct
            for network, score in scores
            if (score.protocol, score.version) == (wanted, VERDICT_KNN.version)
        }
        missing = [
            Job(network, "verdict", VERDICT_KNN)
            for network in (TRAINED, before)
            if network not in right
        ]
        for job, result in zip(missing, measure(missing, splits), strict=True):
            if isinstance(result, InputError):
                return None, result.what
            right[job.network] = result[0].correct
        if len(right[TRAINED]) < 2:
            return None, f"there is one {self._setup.dataset.measured_on} image only"
        return paired_gain(right[TRAINED], right[before]), None

    def _pass(self, networks: list[FrozenNetwork], store: Path, progress: Progress) -> FrozenPass:
        recipe, runtime = self._setup.recipe, self._setup.runtime
        workers = recipe.data.workers
        transform = Transform.of(recipe)
        return FrozenPass(networks, transform, runtime, store, workers=workers, progress=progress)

    @contextmanager
    def _temporary(self, network: FrozenNetwork) -> Iterator[FrozenPass]:
        """A pass whose features are gone afterwards: the next one's weights are others."""
        store = self._store.with_name(".online")

        def clear() -> None:
            shutil.rmtree(store, ignore_errors=True)

        distributed.from_main(clear)  # of a process that was killed while it measured
        try:
            with first_ranks_buffers(network.module):
                yield self._pass([network], store, Progress())
        finally:
            if distributed.rank() == 0:
                clear()

    def _say(self, text: str) -> None:
        """A line, once."""
        if text not in self._told:
            self._told.add(text)
            self._progress.say(text)
