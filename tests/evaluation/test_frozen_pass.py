from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch
import webdataset
from tiny_runs import png
from torch import nn

from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import DataError, InputError, PluginError
from simsiam_zoo.evaluation.frozen_pass import (
    FrozenNetwork,
    FrozenPass,
    Transform,
    refuse_changed,
    state_digest,
)
from simsiam_zoo.evaluation.store import CachedFeatures, fill
from simsiam_zoo.runtime.device import Runtime


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


def rows(ids: list[int], widths: tuple[int, ...] = (3,)):
    """A batch: image i has features i, i + 1, ... by each network, and label 10 i."""
    at = np.array(ids, np.int64)
    x = [torch.from_numpy(at)[:, None] + torch.zeros(width) + n for n, width in enumerate(widths)]
    return at, x, torch.from_numpy(at) * 10


def take(folder, ids, batches, widths=(3,)):
    """Fill entries of so many networks with the images that the batches have."""
    entries = [CachedFeatures(folder, {"network": n}) for n in range(len(widths))]
    fill(entries, np.array(ids, np.int64), widths, (rows(batch, widths) for batch in batches))
    return entries


def test_one_pass_writes_every_networks_rows_in_the_order_of_ids(tmp_path):
    entries = take(tmp_path, range(7), [[3, 4, 5], [0, 1, 2], [6]], widths=(3, 5))
    for n, (entry, width) in enumerate(zip(entries, (3, 5), strict=True)):
        found = entry.read()
        assert torch.equal(found.x, torch.arange(7.0)[:, None].expand(7, width) + n)
        assert found.labels.tolist() == [0, 10, 20, 30, 40, 50, 60]
        assert found.ids.tolist() == list(range(7))
        entry.remove()
        assert entry.read() is None
    assert not tmp_path.exists()


def test_images_that_are_left_out_leave_no_gap(tmp_path):
    for ids, batches in (
        (range(9), [[1, 2], [5], [6, 8]]),
        ([1, 2, 5, 6, 7, 8], [[6, 8], [1, 2, 5]]),
    ):
        (entry,) = take(tmp_path, ids, batches)
        found = entry.read()
        assert found.x[:, 0].tolist() == [1, 2, 5, 6, 8]
        assert found.labels.tolist() == [10, 20, 50, 60, 80]
        assert found.ids.tolist() == [1, 2, 5, 6, 8]


def test_a_pass_that_fails_leaves_nothing_and_what_was_killed_long_ago_is_deleted(tmp_path):
    def cut():
        yield rows([0, 1, 2])
        raise KeyboardInterrupt

    entry = CachedFeatures(tmp_path, {"network": 0})
    with pytest.raises(KeyboardInterrupt):
        fill([entry], np.arange(8), [3], cut())
    assert entry.read() is None
    assert not list(tmp_path.iterdir())
    old, new = (tmp_path / f".{entry.key}-{name}" for name in ("old", "new"))
    for left in (old, new):
        left.mkdir()
    os.utime(old, (0, 0))
    take(tmp_path, range(2), [[0, 1]])
    assert not old.exists()
    assert new.exists()  # another process may be at work in it


def test_a_disk_that_is_full_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        take(tmp_path, range(2), [[0, 1]])
    assert not list(tmp_path.iterdir())


def test_a_pass_without_any_image_is_refused_and_leaves_nothing_to_be_used(tmp_path):
    with pytest.raises(InputError, match="no image"):
        take(tmp_path, [], [])
    assert not list(tmp_path.iterdir())


def test_features_that_another_process_took_meanwhile_stay_for_its_readers(tmp_path):
    def slow():
        yield rows([0, 1])
        (entry,) = take(tmp_path, range(2), [[0, 1]])  # the other process
        written.append(entry.path.stat().st_ino)

    entry, written = CachedFeatures(tmp_path, {"network": 0}), []
    fill([entry], np.arange(2), [3], slow())
    assert written == [entry.path.stat().st_ino]
    assert [*tmp_path.iterdir()] == [entry.path]


def test_an_empty_file_is_damaged_features(tmp_path):
    (entry,) = take(tmp_path, range(2), [[0, 1]])
    (entry.path / "images.npz").write_bytes(b"")
    assert entry.read() is None


def test_a_damaged_image_that_is_a_batch_of_its_own_is_left_out(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "a.tar"), encoder=False) as tar:
        for key, image in enumerate([png(np.full((8, 8), 60, np.uint8))] * 3 + [b"torn"]):
            tar.write({"__key__": f"k{key}", "png": image})
    shards = open_shards(str(tmp_path / "a.tar")).train
    network, transform = (
        FrozenNetwork("pixels", nn.Flatten()),
        Transform(8, 1.0, (0,) * 3, (1,) * 3),
    )
    runtime = Runtime(torch.device("cpu"), "fp32", 1)
    frozen = FrozenPass([network], transform, runtime, tmp_path / "features", batch=3)
    ((found, _),) = frozen.features(shards, "images", whole=False)
    assert found.ids is not None
    assert found.ids.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="k3"):
        frozen.features(shards, "images", whole=True)
