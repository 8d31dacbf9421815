"""The attentive probe: its pooling by hand, frozen tokens, two ranks against one."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from small_network import Small, draw, splits

from simsiam_zoo.catalog import catalog
from simsiam_zoo.evaluation import epochs
from simsiam_zoo.evaluation.frozen_pass import state_digest
from simsiam_zoo.plugin import InputError, create_component
from simsiam_zoo.runtime.checkpoint import load_last
from simsiam_zoo_transfer import training
from simsiam_zoo_transfer.attentive import AttentivePool, tokens_of


def probe(**settings: object):
    given = {"heads": 2, "epochs": 20, "batch": 16, "lr": 0.1, **settings}
    return create_component("protocol", "attentive-probe", **given)


def test_the_query_attends_by_the_formula() -> None:
    """softmax(q K^T / sqrt(D / heads)) V of normalised tokens, head by head, in numpy."""
    pool = AttentivePool(8, 3, 2, seed=0).double()
    torch.manual_seed(0)
    torch.nn.init.normal_(pool.query)
    torch.nn.init.normal_(pool.head.weight)
    tokens = torch.randn(4, 5, 8, dtype=torch.float64)
    x = tokens.numpy()
    x = (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + pool.norm.eps)
    key, value, query, head = (
        w.detach().numpy()
        for w in (pool.key.weight, pool.value.weight, pool.query, pool.head.weight)
    )
    parts = []
    for h in (slice(0, 4), slice(4, 8)):
        scores = (x @ key.T)[..., h] @ query[h] / 2  # the root of 8 / 2
        parts.append(np.einsum("nt,ntd->nd", softmax(scores, axis=1), (x @ value.T)[..., h]))
    expected = np.concatenate(parts, axis=1) @ head.T
    with torch.no_grad():
        np.testing.assert_allclose(pool(tokens).numpy(), expected, rtol=1e-10)
        shuffled = pool(tokens[:, torch.randperm(5)])
    np.testing.assert_allclose(shuffled.numpy(), expected, rtol=1e-10)


def test_it_learns_and_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    network = Small(0.5)
    before = state_digest(network)
    first, second = (probe()(splits(network, tmp_path / str(n)))[0] for n in range(2))
    assert state_digest(network) == before
    assert first.top1 > 0.6  # of three classes
    assert torch.equal(first.correct, second.correct)
    assert first.protocol == "attentive-probe (lr=0.1, batch=16, epochs=20)"
    assert (first.details["tokens"], first.details["width"]) == (4, 8)
    kept = load_last(tmp_path / "0" / "version-1")[0]["model"]
    assert all(name.startswith("pool.") for name in kept)  # the network is not saved with it


@pytest.mark.parametrize(
    ("name", "shape"), [("test_vit", (2, 17, 64)), ("test_resnet", (2, 1, 96))]
)
def test_tokens_are_those_of_a_vit_or_the_places_of_a_map(name: str, shape: tuple[int]) -> None:
    """Their mean is the pooled feature, of a ViT without its class token."""
    network = catalog().resolve("backbone", name).create(image_size=64 if "vit" in name else 32)
    network.eval()
    x = torch.randn(2, 3, *[64 if "vit" in name else 32] * 2)
    with torch.no_grad():
        tokens = tokens_of(network, x)
        assert (*tokens.shape,) == shape
        prefix = getattr(network, "num_prefix_tokens", 0)
        pooled = tokens[:, 0] if prefix else tokens.mean(1)
        torch.testing.assert_close(pooled, network(x), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="8 wide, and 3 heads") as refused:
        probe(heads=3)(splits(Small()))
    assert "attentive-probe:heads=" in str(refused.value)
    with pytest.raises(InputError, match="no forward_features"):
        tokens_of(catalog().resolve("backbone", "vgg_small").create(image_size=32), draw(1, 0)[0])


class TwoRanks:
    """Two threads in the place of two processes."""

    def __init__(self) -> None:
        self.local = threading.local()
        self.barrier = threading.Barrier(2, timeout=60)
        self.said: dict[int, object] = {}

    def rank(self) -> int:
        return int(self.local.rank)

    def world_size(self) -> int:
        return 2

    def total(self, x: torch.Tensor) -> torch.Tensor:
        self.said[self.rank()] = x.clone()
        self.barrier.wait()
        both = self.said[0] + self.said[1]  # type: ignore[operator]
        self.barrier.wait()
        return both

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        return self.total(x) / 2

    def from_main(self, work):
        if self.rank() == 0:
            self.of_main = work()
        self.barrier.wait()
        found = self.of_main
        self.barrier.wait()
        return found


def test_two_ranks_with_half_of_each_batch_are_one(tmp_path, monkeypatch) -> None:
    (one,) = probe(epochs=4)(splits(Small(), tmp_path / "one"))
    ranks = TwoRanks()
    for name in ("rank", "world_size", "total", "mean"):
        monkeypatch.setattr(training, name, getattr(ranks, name))
    monkeypatch.setattr(epochs, "distributed", ranks)
    # its generator is the process's, which two threads share
    monkeypatch.setattr(training._Training, "cost", lambda _: "")
    found: dict[int, object] = {}
    networks = [Small(), Small()]  # here, for the same reason

    def run(rank: int) -> None:
        ranks.local.rank = rank
        (found[rank],) = probe(epochs=4)(splits(networks[rank], tmp_path / "two", rank, 2))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [0, 1]
    for score in found.values():
        assert torch.equal(score.correct, one.correct)
        assert score.details["last_loss"] == pytest.approx(one.details["last_loss"], abs=1e-4)
