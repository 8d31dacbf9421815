from __future__ import annotations

import gzip
import itertools
import os
import pickle
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset.gopen  # noqa: F401
from made_images import random_png
from served import Handler, serve

from simsiam_zoo.components.augmentations import DigitsAugmentation
from simsiam_zoo.data.decode import decode
from simsiam_zoo.data.image import ViewParams
from simsiam_zoo.data.loader import TrainLoader
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.remote import transfer
from simsiam_zoo.data.scan import sample_of, scan
from simsiam_zoo.data.stream import (
    StreamPlan,
    StreamSet,
    open_stream_set,
    read_stream,
    stream_samples,
)
from simsiam_zoo.errors import DataError, InputError

DIGITS = DigitsAugmentation(min_scale=0.4, rotation=15, shear=0.3, brightness=0.4, contrast=0.4)


@pytest.fixture(autouse=True)
def _no_openers_and_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("webdataset was asked to open a URL")

    monkeypatch.setattr(sys.modules["webdataset.gopen"], "gopen", refuse)
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.001)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 shards of 4 images, and nothing that counts them."""
    folder = tmp_path_factory.mktemp("uncounted")
    samples = [PackedSample(f"a/k{i:02d}", random_png(i, 40), "png", i % 3) for i in range(24)]
    pack_dataset(folder, {"train": samples}, None, shard_size=4)
    for file in folder.iterdir():
        if file.suffix != ".tar":
            file.unlink()
    return folder


def test_a_shard_is_read_from_front_to_back(packed: Path) -> None:
    path = packed / "train-000001.tar"
    read = list(read_stream(str(path)))
    assert [s.name for s in read] == [f"{path}: a/k{i:02d}" for i in range(4, 8)]
    assert [s.image for s in read] == [random_png(i, 40) for i in range(4, 8)]


def test_a_broken_connection_goes_on_where_it_broke(packed: Path) -> None:
    def cut(handler: Handler, content: bytes) -> bool:
        import hashlib

        etag = f'"{hashlib.md5(content).hexdigest()}"'
        headers = {"Content-Length": str(len(content)), "ETag": etag}
        handler.answer(200, content[:7000], headers)
        handler.close_connection = True
        return True

    def other_version(handler: Handler, content: bytes) -> bool:
        handler.answer(200, content, {"ETag": '"other"'})
        return True

    name = "train-000002.tar"
    with serve(packed) as server:
        url = f"{server.url}/{name}"
        server.misbehave[name] = [cut]
        assert [s.image for s in read_stream(url)] == [random_png(i, 40) for i in range(8, 12)]
        assert [request.range for request in server.asked(name)] == [None, "bytes=7000-"]
        server.misbehave[name] = [cut, other_version]
        with pytest.raises(DataError, match=r"train-000002\.tar changed"):
            list(read_stream(url))
        with pytest.raises(DataError, match=r"train-9\.tar cannot be had"):
            list(read_stream(f"{server.url}/train-9.tar"))


def test_streams_come_from_names_alone_but_what_is_on_disk_is_known_by_its_time(packed: Path):
    far = "https://nowhere.example/x/train-{000000..000005}.tar"
    assert open_stream_set(far).digest == open_stream_set(far).digest
    near = open_stream_set(str(packed))
    before = near.digest
    assert before == open_stream_set(str(packed)).digest
    os.utime(near.sources[0], ns=(0, 7))
    assert near.digest != before
    with pytest.raises(InputError, match="needs the shards themselves"):
        open_stream_set("https://nowhere.example/x/")
    for source in ("pipe:cat x", "-", "https://u:p@h/a.tar", "file:///a.tar"):
        with pytest.raises(InputError):
            open_stream_set(source)


def test_all_images_come_about_equally_often_in_an_order_of_the_seeds(packed: Path) -> None:
    sources = open_stream_set(str(packed)).sources
    names = [[s.name for s in itertools.islice(stream_samples(sources, k), 600)] for k in (1, 1, 2)]
    assert names[0] == names[1] != names[2]
    counted = Counter(names[0])
    assert len(counted) == 24
    assert max(counted.values()) < 5 * min(counted.values())
    assert names[0][:4] != sorted(names[0][:4]) or names[2][:4] != sorted(names[2][:4])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_a_run(packed: Path, workers: int) -> None:
    shards = open_stream_set(str(packed))
    plan = StreamPlan(steps=3, batch=8)
    loader = TrainLoader(shards, plan, DIGITS, 16, epochs=2, workers=workers)
    batches = list(loader.batches(0, 1))
    assert [(b.epoch, b.step) for b in batches] == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert all(b.pixels[0].shape == (2, 8, 3, 16, 16) for b in batches)
    assert all((b.labels == -1).all() for b in batches)
    assert not torch.equal(batches[0].pixels[0], batches[1].pixels[0])
    ranks = [plan.ids(e, s, r, 2) for e in range(2) for s in range(3) for r in range(2)]
    assert sorted(i for ids in ranks for i in ids.tolist()) == list(range(48))


class Whole:
    """The image as it is."""

    def sample(
        self, generator: np.random.Generator, view: int, size: tuple[int, int]
    ) -> ViewParams:
        return ViewParams((0, 0, size[1], size[0]))


def test_a_damaged_image_of_a_stream_is_told_and_the_next_one_taken(
    tmp_path: Path, write_tar
) -> None:
    good = {f"{i}.png": random_png(i, 12) for i in range(9)}
    path = write_tar(tmp_path / "a.tar", {"bad.png": random_png(9, 12)[:-9], **good})
    loader = TrainLoader(open_stream_set(str(path)), StreamPlan(5, 8), Whole(), 12, epochs=4)
    batches = list(loader)
    damaged = [damage for batch in batches for damage in batch.damaged]
    assert 5 < len(damaged) < 40  # a tenth of what came
    assert {damage.name for damage in damaged} == {f"{path}: bad"}
    assert all("cut off" in damage.reason for damage in damaged)
    images = {decode(image).tobytes() for image in good.values()}
    for batch in batches:
        shown = [view.permute(1, 2, 0).numpy().tobytes() for view in batch.views[0]]
        assert set(shown) <= images
        assert all(0 <= damage.row < 8 for damage in batch.damaged)


def header(name: str, kind: bytes, size: int, content: bytes = b"") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")


def resummed(raw: bytes) -> bytes:
    raw = raw[:148] + b" " * 8 + raw[156:]
    return raw[:148] + b"%06o\0 " % sum(raw[:512]) + raw[156:]


HIDDEN = header("evil.png", b"0", 4, b"evil")
HOSTILE = {
    "a device": header("x.png", b"3", 0),
    "a symbolic link": header("x.png", b"2", 0),
    "a sparse file": header("x.png", b"S", 512, HIDDEN),
    "overrides the .size": header("pax", b"x", 20, b"20 size=99999999999\n"),
    "sparse": header("pax", b"x", 22, b"22 GNU.sparse.major=1\n"),
    "too many for one member": header("x.png", b"0", 1 << 30),
    "absurd": header("x", b"L", 1 << 30),
    "no plain octal": resummed((raw := header("x.png", b"0", 0))[:124] + b"\x80" + raw[125:]),
    "wrong checksum": header("x.png", b"0", 0).replace(b"x.png", b"y.png"),
    "cut off": header("x.png", b"0", 5000, b"x" * 1000),
}


@pytest.mark.parametrize("words", HOSTILE)
def test_hostile_archives_are_refused(words: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar"
    path.write_bytes(HOSTILE[words] + bytes(1024))
    with pytest.raises(DataError, match=words):
        raise AssertionError(list(read_stream(str(path))))


def test_what_another_reader_would_take_for_a_member_is_passed_over(tmp_path: Path) -> None:
    """A folder with a content, as which a member is hidden."""
    path = tmp_path / "a.tar"
    folders = header("folder", b"5", len(HIDDEN), HIDDEN) + header("f/", b"\0", len(HIDDEN), HIDDEN)
    path.write_bytes(folders + header("x.png", b"0", 4, b"good") + bytes(1024))
    assert [sample.image for sample in read_stream(str(path))] == [b"good"]
    assert scan(path).key(0) == "x"


def test_compressed_archives_are_refused(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.tar"
    path.write_bytes(gzip.compress((packed / "train-000000.tar").read_bytes()))
    with pytest.raises(InputError, match="gzip"):
        list(read_stream(str(path)))


def test_a_name_that_a_sample_has_already_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(header("x.png", b"0", 4, b"good") * 2 + bytes(1024))
    with pytest.raises(DataError, match=r"a\.tar is damaged: .*x\.png.*duplicate file name"):
        list(read_stream(str(path)))


def test_no_more_of_one_key_is_held_than_of_one_member(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write_tar
) -> None:
    from simsiam_zoo.data import stream

    monkeypatch.setattr(stream, "MAX_MEMBER_BYTES", 4096)
    path = write_tar(tmp_path / "a.tar", {f"x.{i}.png": bytes(2000) for i in range(9)})
    assert [s.name for s in read_stream(str(path))] == [f"{path}: x"] * 3


class Sentinel:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("sentinel"),)


def test_nothing_is_unpickled_and_control_characters_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_tar
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_tar(
        tmp_path / "a.tar",
        {"a\x1b.png": random_png(0), "a\x1b.pyd": pickle.dumps(Sentinel()), "b.txt": b"text"},
    )
    (sample,) = read_stream(str(path))
    assert sample.name.endswith(r": a\x1b")
    assert not (tmp_path / "sentinel").exists()


def test_shards_without_images_are_no_endless_loop(tmp_path: Path, write_tar) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.txt": b"text"})
    with pytest.raises(DataError, match="no shard holds images"):
        StreamSet((str(path),)).read(0)


def test_the_buffer_is_bounded_in_bytes(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simsiam_zoo.data import stream

    size = len(random_png(0, 40))
    monkeypatch.setattr(stream, "SHUFFLED_BYTES", 3 * size)
    read = 0

    def counting(*args: Any) -> Any:
        nonlocal read
        read += 1
        return sample_of(*args)

    monkeypatch.setattr(stream, "sample_of", counting)
    sources = open_stream_set(str(packed)).sources
    for given, _ in enumerate(itertools.islice(stream_samples(sources, 0), 100), start=1):
        assert read - given <= 4
