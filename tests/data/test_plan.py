from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsiam_zoo.data.order import SampleOrder, derive_key, keyed_hash
from simsiam_zoo.errors import InputError

MASK = (1 << 64) - 1


def splitmix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def plain_hash(value: int, key: int) -> int:
    return splitmix(splitmix((value + key) & MASK) ^ splitmix(key ^ 0x9E3779B97F4A7C15))


def plain_epoch(counts, seed, epoch, batch, lanes, window):
    """The whole epoch [steps][batch], written from the words of the plan, one sample at a time."""
    shard_key, sample_key = derive_key(seed, 1, epoch), derive_key(seed, 2, epoch)
    first = [sum(counts[:s]) for s in range(len(counts))]
    order = sorted(range(len(counts)), key=lambda s: plain_hash(s, shard_key))
    line = [(place, first[s] + i) for place, s in enumerate(order) for i in range(counts[s])]
    length, share = len(line) // lanes, batch // lanes
    steps = [[] for _ in range(len(line) // batch)]
    for lane in range(lanes):
        part = line[lane * length : (lane + 1) * length]
        groups: dict[int, list[int]] = {}
        for place, id in part:
            groups.setdefault((place - part[0][0]) // window, []).append(id)
        ids = [
            id
            for group in groups.values()
            for id in sorted(group, key=lambda i: plain_hash(i, sample_key))
        ]
        for k, step in enumerate(steps):
            step.extend(ids[k * share : (k + 1) * share])
    return steps


@st.composite
def plans(draw: st.DrawFn) -> dict[str, object]:
    counts = draw(st.lists(st.sampled_from([0, 0, 1, 2, 3, 7, 11]), min_size=1, max_size=12))
    lanes = draw(st.integers(1, 4))
    world = draw(st.integers(1, 4))
    unit = int(np.lcm(lanes, world))
    if sum(counts) < unit:
        counts.append(unit)
    batch = unit * draw(st.integers(1, max(1, min(3, sum(counts) // unit))))
    return {
        "counts": counts,
        "seed": draw(st.integers(0, 2**63)),
        "batch": batch,
        "lanes": lanes,
        "window": draw(st.integers(1, 6)),
        "epoch": draw(st.integers(0, 1000)),
        "world": world,
    }


@settings(max_examples=250, deadline=None)
@given(plans(), st.randoms())
def test_plan_is_the_construction_on_any_shards_ranks_and_start(case, random):
    epoch, world = case.pop("epoch"), case.pop("world")
    plan = SampleOrder(**case)
    steps = [plan.ids(epoch, k) for k in range(plan.steps)]

    assert plan.steps == sum(case["counts"]) // case["batch"]
    expected = plain_epoch(epoch=epoch, **case)
    assert [step.tolist() for step in steps] == expected
    seen = np.concatenate(steps)
    assert len(set(seen.tolist())) == len(seen) == plan.steps * case["batch"]

    k = random.randrange(plan.steps)
    fresh = SampleOrder(**case)  # a run that starts here: it has seen nothing
    ranks = [fresh.ids(epoch, k, rank, world) for rank in range(world)]
    assert {len(ids) for ids in ranks} == {case["batch"] // world}
    np.testing.assert_array_equal(np.concatenate(ranks), steps[k])


def test_every_sample_is_as_likely_in_every_place():
    counts, epochs = (3, 1, 0, 4), 4000
    plan = SampleOrder(counts, seed=3, batch=8)
    seen = np.zeros((8, 8))
    for epoch in range(epochs):
        seen[plan.ids(epoch, 0), np.arange(8)] += 1
    expected = epochs / 8
    chi_square = ((seen - expected) ** 2 / expected).sum()
    assert chi_square < 49 + 5 * np.sqrt(2 * 49)  # (8 - 1)^2 degrees of freedom, 5 sigma


def test_a_step_draws_on_one_window_of_each_lane():
    counts = [10] * 40
    plan = SampleOrder(counts, seed=0, batch=40, lanes=2, window=4)
    for step in range(plan.steps):
        for half in np.split(plan.ids(0, step), 2):
            assert len(set((half // 10).tolist())) <= 8  # two windows at their border
    one_window = plan.ids(0, 0)[:20] // 10
    assert len(set(one_window.tolist())) <= 4


def test_order_is_the_recorded_one():
    # A run that is resumed with a later version must go on in the order in which it began.
    plan = SampleOrder((5, 0, 7, 3), seed=42, batch=5, window=2)
    steps = [plan.ids(1, step).tolist() for step in range(3)]
    assert steps == [[14, 12, 3, 4, 0], [1, 2, 13, 6, 9], [8, 10, 7, 5, 11]]
    assert keyed_hash(np.arange(2), 7).tolist() == [plain_hash(0, 7), plain_hash(1, 7)]


def test_a_billion_samples_are_sought_in_under_a_second_and_200_mb():
    counts = np.full(100_000, 10_000)
    tracemalloc.start()
    begin = time.perf_counter()
    plan = SampleOrder(counts, seed=1, batch=4096, lanes=8)
    ids = plan.ids(3, plan.steps - 1, rank=63, world=64)
    seconds = time.perf_counter() - begin
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(ids) == 64
    assert 0 <= ids.min() <= ids.max() < 10**9
    assert seconds < 1
    assert peak < 200e6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch": 6, "lanes": 4}, "lanes"),
        ({"batch": 64}, "fewer than one global batch"),
        ({"batch": 0}, "batch size"),
        ({"batch": 4, "window": 0}, "window"),
    ],
)
def test_impossible_plans_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        SampleOrder((10, 20), seed=0, **arguments)


def test_ranks_that_cannot_share_and_steps_past_the_end_are_refused():
    plan = SampleOrder((10, 20), seed=0, batch=4)
    with pytest.raises(InputError, match="3 ranks"):
        plan.ids(0, 0, rank=0, world=3)
    with pytest.raises(InputError, match="no step 7"):
        plan.ids(0, plan.steps)


def test_the_plan_names_the_shards_of_its_steps() -> None:
    counts = [5, 0, 7, 3, 3, 9, 1, 4, 6, 2]
    for lanes, window, world in ((1, 2, 1), (2, 2, 2), (2, 3, 1), (1, 4, 2), (4, 1, 2)):
        plan = SampleOrder(counts, seed=1, batch=8, lanes=lanes, window=window)
        shard_of = [i for i, count in enumerate(counts) for _ in range(count)]
        for rank in range(world):
            for first in range(3 * plan.steps):
                for last in range(first, min(first + 3, 3 * plan.steps)):
                    named = plan.shards(first, last, 3, rank, world)
                    assert len(set(named)) == len(named)
                    used = {
                        shard_of[id]
                        for at in range(first, last + 1)
                        for id in plan.ids(*divmod(at, plan.steps), rank, world).tolist()
                    }
                    assert used <= set(named)
            if first == last and window * 2 * lanes < len(counts):
                assert len(named) <= window * 2 * lanes
