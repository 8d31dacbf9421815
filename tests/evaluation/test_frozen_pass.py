from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from simsiam_zoo.errors import PluginError
from simsiam_zoo.evaluation.frozen_pass import refuse_changed, state_digest
from simsiam_zoo.evaluation.store import Entry, cached


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
            refuse_changed(network, before, "net")
        value.data.copy_(saved)
    refuse_changed(network, before, "net")


def rows(ids: list[int], dim: int = 3):
    at = np.array(ids, np.int64)
    return at, torch.from_numpy(at)[:, None] * torch.ones(dim), torch.from_numpy(at) * 10


def test_rows_lie_in_the_order_of_ids_whoever_wrote_them_first(tmp_path):
    entry = Entry(tmp_path, {"of": "numbers"})
    made = entry.make(7, 3, [rows([4, 5, 6]), rows([0, 1]), rows([2, 3])])
    for found in (made, entry.read()):
        assert found is not None
        assert torch.equal(found.x, torch.arange(7.0)[:, None].expand(7, 3))
        assert found.labels.tolist() == [0, 10, 20, 30, 40, 50, 60]


def test_images_that_are_left_out_leave_no_gap(tmp_path):
    found = Entry(tmp_path, {}).make(9, 3, [rows([1, 2, 5]), rows([6, 8])])
    assert found.x[:, 0].tolist() == [1, 2, 5, 6, 8]
    assert found.labels.tolist() == [10, 20, 50, 60, 80]
    assert found.ids.tolist() == [1, 2, 5, 6, 8]
    assert Entry(tmp_path, {}).read().ids.tolist() == [1, 2, 5, 6, 8]


def test_where_all_are_wanted_a_pass_that_left_some_out_is_made_again(tmp_path):
    def take(ids: list[int], whole: bool):
        return cached(Entry(tmp_path, {}), 3, 3, lambda: [rows(ids)], print, whole=whole)

    for ids, whole, there in (
        ([0, 2], False, [0, 2]),
        ([0, 1, 2], False, [0, 2]),  # found on disk
        ([0, 1, 2], True, [0, 1, 2]),
        ([0, 2], False, [0, 1, 2]),
    ):
        assert take(ids, whole).ids.tolist() == there


def test_a_pass_that_fails_leaves_nothing(tmp_path):
    def broken():
        yield rows([0])
        raise PluginError("no more")

    with pytest.raises(PluginError):
        Entry(tmp_path, {}).make(3, 3, broken())
    assert not list(tmp_path.iterdir())
    assert Entry(tmp_path, {}).read() is None
