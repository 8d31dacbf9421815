"""What is measured of a run on the way and at its end: once, of each image, by every rank."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.knn import KnnProtocol
from simsiam_zoo.metrics import RAW, TRAINED, online_row
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.training import measuring
from simsiam_zoo.training.conclude import untrained_network
from simsiam_zoo.training.measuring import RunEvaluation
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.setup import prepare

Tiny = Callable[..., Recipe]
Run = Callable[..., tuple[Path, dict[str, Any]]]


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int]]:
    """How often each image is read from now on, by (size of its split, id)."""
    reads: Counter[tuple[int, int]] = Counter()
    real = ShardSet.read

    def read(self: ShardSet, id: int) -> object:
        reads[len(self), id] += 1
        return real(self, id)

    monkeypatch.setattr(ShardSet, "read", read)
    return reads


def test_measuring_on_the_way_again_finds_the_same_and_leaves_nothing(
    tiny: Tiny, tmp_path: Path
) -> None:
    setup = prepare(tiny({"evaluation.online_images": 48}))
    evaluation = RunEvaluation(setup, tmp_path)
    first = evaluation.online()
    assert evaluation.online() == first
    assert evaluation.rank(setup.siamese) == first["effective_rank"]
    assert not list(tmp_path.iterdir())
    (tmp_path / ".online" / "torn").mkdir(parents=True)  # as a process leaves it that was killed
    assert evaluation.online() == first
    assert not list(tmp_path.iterdir())


def test_a_column_is_the_same_for_data_of_any_size() -> None:
    def column(protocol: str, train_images: int) -> str:
        return next(iter(online_row(protocol, 0.5, 40, train_images)))

    assert column("knn (k=80, t=0.1)", 80) == "top1 knn (k=all, t=0.1)"  # k was limited by them
    assert column("knn (k=20, t=0.1)", 2000) == "top1 knn (k=20, t=0.1)"
    assert column("linear (best of 2, batch=90)", 90) == "top1 linear (best of 2, batch=all)"


def test_any_protocol_is_measured_on_the_way(run: Run) -> None:
    online = ["knn:k=3", "logistic", "linear:epochs=2"]
    settings = {"evaluation.online": online, "evaluation.online_epochs": 1}
    folder, _ = run({**settings, "evaluation.online_images": 90, "training.epochs": 2})
    (row,) = [row for row in read_metrics(folder) if "effective_rank" in row][:1]
    assert row["step"] == 6
    top1 = [key for key in row if key.startswith("top1 ")]
    assert [key.split()[1] for key in top1] == ["knn", "logistic", "linear"]
    assert row["train_images knn (k=3, t=0.1)"] == 90
    assert row["test_images knn (k=3, t=0.1)"] == 45
    assert not (folder / "features").exists()


def test_what_is_measured_on_the_way_changes_no_weight(run: Run) -> None:
    weights = []
    for name, online in (("with", ["logistic", "linear:epochs=1"]), ("without", [])):
        folder, _ = run({"evaluation.online": online, "evaluation.online_epochs": 1}, name)
        state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["siamese"]
        weights.append(state)
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_a_protocol_that_trains_for_many_epochs_is_refused_on_the_way(run, tmp_path) -> None:
    with pytest.raises(InputError, match=r"evaluation\.online: linear-paper"):
        run({"evaluation.online": ["linear-paper"]})
    assert not (tmp_path / "run").exists()  # so that the same --out can be given again


def test_at_the_end_each_image_is_decoded_once_for_all_networks_and_no_score_is_taken_twice(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"evaluation.baselines": True, "evaluation.protocols": ["knn", "logistic"]}
    setup = prepare(tiny(settings))
    evaluation = RunEvaluation(setup, tmp_path)
    untrained = untrained_network(setup)
    calls: list[tuple[int | None, ...]] = []
    real = KnnProtocol.__call__

    def call(self: KnnProtocol, splits: Any) -> Any:
        calls.append(self.ks)
        return real(self, splits)

    monkeypatch.setattr(KnnProtocol, "__call__", call)
    reads = counted(monkeypatch)
    final = evaluation.final(untrained, "untrained network")
    assert set(reads.values()) == {1}
    assert reads.total() == 96 + 64
    assert calls == [(20, 200)] * 3  # the verdict's kNN is the table's
    assert {network for network, _ in final.scores} == {TRAINED, "untrained network", RAW}
    assert final.gain is not None

    # What is on disk is not taken again.
    again = RunEvaluation(setup, tmp_path).final(untrained, "untrained network")
    assert reads.total() == 96 + 64
    assert [s.top1 for _, s in again.scores] == [s.top1 for _, s in final.scores]
    evaluation.clean_up()
    assert not list(tmp_path.iterdir())


def test_the_verdicts_knn_is_taken_where_the_table_lacks_it(tiny, tmp_path, monkeypatch) -> None:
    gains = []
    for protocols, baselines in ((["knn"], True), (["knn:k=7"], False), ([], False)):
        settings = {"evaluation.protocols": protocols, "evaluation.baselines": baselines}
        setup = prepare(tiny(settings))
        final = RunEvaluation(setup, tmp_path).final(untrained_network(setup), "before")
        gains.append(final.gain)
        if not baselines:
            assert {network for network, _ in final.scores} <= {TRAINED}
    assert gains[0] == gains[1] == gains[2]


def test_a_protocol_that_refuses_the_features_does_not_end_the_run(run: Run, monkeypatch) -> None:
    def refuse(self: object, splits: object) -> None:
        raise InputError("every classifier diverged", "Give lower learning rates.")

    monkeypatch.setattr("simsiam_zoo.evaluation.linear.LinearProtocol.__call__", refuse)
    protocols = ["knn:k=5", "linear"]
    online = {"evaluation.online": ["linear"], "evaluation.online_epochs": 1}
    folder, result = run({"evaluation.protocols": protocols, **online})
    (refused,) = result["refused"]
    assert refused["reason"] == "every classifier diverged"
    assert refused["protocol"] == "linear"
    assert [figure["protocol"] for figure in result["figures"]] == ["knn (k=5, t=0.1)"]
    assert json.loads((folder / "result.json").read_text()) == result
    assert measuring.VERDICT_KNN.ks == (20,)
