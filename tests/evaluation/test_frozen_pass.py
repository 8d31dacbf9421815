from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.evaluation import store
from simsiam_zoo.evaluation.networks import FrozenNetwork, refuse_changed, state_digest
from simsiam_zoo.evaluation.store import CachedFeatures, fill


def test_a_digest_sees_every_bit_of_weights_and_bn_statistics():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    network.register_buffer("kept_by_no_checkpoint", torch.zeros(2), persistent=False)
    before = state_digest(network)
    assert state_digest(network.eval()) == before
    for value in (*network.parameters(), *network.buffers()):
        saved = value.detach().clone()
        value.data.view(-1)[0] += 1
        assert state_digest(network) != before
        with pytest.raises(PluginError, match="changed while its features were taken"):
            refuse_changed(FrozenNetwork("net", network), before)
        value.data.copy_(saved)
    refuse_changed(FrozenNetwork("net", network), before)


BATCH = 3


def rows(ids: list[int], widths: tuple[int, ...] = (3,)):
    """A batch: place i has features i, i + 1, ... by each network, and label 10 i."""
    at = np.array(ids, np.int64)
    x = [torch.from_numpy(at)[:, None] + torch.zeros(width) + n for n, width in enumerate(widths)]
    return at, x, torch.from_numpy(at) * 10


def take(folder, samples, batches, widths=(3,), whole=False):
    """Fill entries of so many networks; which batches were asked for."""
    entries = [CachedFeatures(folder, {"network": n}) for n in range(len(widths))]
    asked = []

    def given(numbers: list[int]):
        asked.extend(numbers)
        return (rows(batches[number], widths) for number in numbers)

    fill(entries, samples, widths, BATCH, given, whole=whole)
    return [entry.read() for entry in entries], asked


def test_one_pass_writes_every_networks_rows_in_the_order_of_ids(tmp_path):
    found, asked = take(tmp_path, 7, [[0, 1, 2], [3, 4, 5], [6]], widths=(3, 5))
    assert asked == [0, 1, 2]
    for n, width in enumerate((3, 5)):
        assert torch.equal(found[n].x, torch.arange(7.0)[:, None].expand(7, width) + n)
        assert found[n].labels.tolist() == [0, 10, 20, 30, 40, 50, 60]
        assert CachedFeatures(tmp_path, {"network": n}).usable(7)
    assert take(tmp_path, 7, [], widths=(3, 5))[1] == []
    assert not list(tmp_path.glob(".*"))


def test_images_that_are_left_out_leave_no_gap(tmp_path):
    (found,), _ = take(tmp_path, 9, [[1, 2], [5], [6, 8]])
    (again,), asked = take(tmp_path, 9, [])
    assert asked == []
    for each in (found, again):
        assert each.x[:, 0].tolist() == [1, 2, 5, 6, 8]
        assert each.labels.tolist() == [10, 20, 50, 60, 80]
        assert each.ids.tolist() == [1, 2, 5, 6, 8]


def test_where_all_are_wanted_a_pass_that_left_some_out_is_made_again(tmp_path):
    assert take(tmp_path, 3, [[0, 2]])[0][0].ids.tolist() == [0, 2]
    assert take(tmp_path, 3, [[0, 1, 2]])[0][0].ids.tolist() == [0, 2]  # found on disk
    assert take(tmp_path, 3, [[0, 1, 2]], whole=True)[0][0].ids.tolist() == [0, 1, 2]
    assert take(tmp_path, 3, [[0, 2]])[0][0].ids.tolist() == [0, 1, 2]


def test_a_pass_that_was_cut_short_goes_on_where_it_was(tmp_path):
    class Cut(Exception):
        pass

    def cut(numbers: list[int]):
        yield rows([0, 1, 2])
        yield rows([3, 5])  # 4 is damaged
        raise Cut

    entry = CachedFeatures(tmp_path, {"network": 0})
    with pytest.raises(Cut):
        fill([entry], 8, [3], BATCH, cut)
    assert not entry.usable()
    (found,), asked = take(tmp_path, 8, {2: [6, 7]})
    assert asked == [2]
    assert found.x[:, 0].tolist() == [0, 1, 2, 3, 5, 6, 7]
    # Of another width they are other features, whatever the key says.
    other = CachedFeatures(tmp_path, {"network": 1})
    with pytest.raises(Cut):
        fill([other], 8, [3], BATCH, cut)
    (_, found), asked = take(tmp_path, 8, [[0, 1, 2], [3, 4, 5], [6, 7]], widths=(3, 2))
    assert asked == [0, 1, 2]
    assert found.x.shape == (8, 2)


def test_what_is_not_yet_on_disk_is_not_noted(tmp_path, monkeypatch):
    """A machine that goes down keeps what was noted: so the notes come after the features."""
    order: list[str] = []
    real_sync, real_write = store.os.fsync, store._pwrite
    monkeypatch.setattr(store.os, "fsync", lambda handle: order.append("sync") or real_sync(handle))

    def write(handle, content, at):
        order.append({12 * BATCH: "x", 8 * BATCH: "labels", BATCH: "state"}[len(content)])
        real_write(handle, content, at)

    monkeypatch.setattr(store, "_pwrite", write)
    take(tmp_path, 6, [[0, 1, 2], [3, 4, 5]])
    assert order[:8] == [*("x", "labels") * 2, "sync", "sync", "state", "state"]


def test_a_pass_without_any_image_is_refused_and_leaves_nothing_to_be_used(tmp_path):
    with pytest.raises(InputError, match="no image"):
        take(tmp_path, 0, [])
    assert not CachedFeatures(tmp_path, {"network": 0}).usable()
