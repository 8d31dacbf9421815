"""Data sets as they lie on disk, written here in their real layouts, read back through shards."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import struct
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from made_images import random_png
from torchvision.datasets import CIFAR10, CIFAR100

from simsiam_zoo.data.decode import decode
from simsiam_zoo.data.packing.formats import open_original
from simsiam_zoo.errors import DataError, InputError

RANDOM = np.random.default_rng(0)


def read(split) -> list[tuple[np.ndarray, int]]:
    return [(decode(split.read(i)), int(split.labels[i])) for i in range(len(split))]


def same(split, images: np.ndarray, labels) -> bool:
    got = read(split)
    rgb = images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=3)
    return (
        len(got) == len(rgb)
        and all((image == true).all() for (image, _), true in zip(got, rgb, strict=True))
        and [label for _, label in got] == list(labels)
    )


class Python2Pickler(pickle._Pickler):
    """Writes strings as Python 2 did, which made the batches of CIFAR: BINSTRING."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value: bytes | str) -> None:
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def python2_pickle(value: object) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def make_cifar(folder: Path, classes: int, form: str) -> tuple[np.ndarray, list[int]]:
    """A small CIFAR in one of its authors' layouts; training images and labels, the test ones last.

    Flat pixels are planes, as the authors store them.
    """
    counts = [4] * 5 + [3] if classes == 10 else [8, 3]
    flat = RANDOM.integers(0, 256, (sum(counts), 3072), np.uint8)
    labels = RANDOM.integers(0, classes, len(flat)).tolist()
    binary = form == "binary"
    if classes == 10:
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        folder /= "cifar-10-batches-bin" if binary else "cifar-10-batches-py"
    else:
        names = ["train", "test"]
        folder /= "cifar-100-binary" if binary else "cifar-100-python"
    folder.mkdir(parents=True)
    words = [f"class_{i}" for i in range(classes)]
    start = 0
    for name, count in zip(names, counts, strict=True):
        some, its = flat[start : start + count], labels[start : start + count]
        start += count
        if binary:
            heads = [bytes([7, label][2 - (1 if classes == 10 else 2) :]) for label in its]
            records = b"".join(h + row.tobytes() for h, row in zip(heads, some, strict=True))
            (folder / f"{name}.bin").write_bytes(records)
        else:
            key = "labels" if classes == 10 else "fine_labels"
            batch = {"data": some, key: its, "batch_label": "x", "filenames": ["a.png"] * count}
            content = (
                python2_pickle(batch) if form == "python 2" else pickle.dumps(batch, protocol=4)
            )
            (folder / name).write_bytes(content)
    if binary:
        file = "batches.meta.txt" if classes == 10 else "fine_label_names.txt"
        (folder / file).write_text("\n".join(words) + "\n\n")
    else:
        key = "label_names" if classes == 10 else "fine_label_names"
        file = "batches.meta" if classes == 10 else "meta"
        (folder / file).write_bytes(python2_pickle({key: words}))
    return flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def publish(monkeypatch: pytest.MonkeyPatch, folder: Path, classes: int) -> None:
    """Have torchvision take the files in `folder` for those of CIFAR's authors."""
    kind = CIFAR10 if classes == 10 else CIFAR100
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    for name in ("train_list", "test_list"):
        published = [[file, md5[file]] for file, _ in getattr(kind, name)]
        monkeypatch.setattr(kind, name, published)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5[kind.meta["filename"]]})


@pytest.mark.parametrize("form", ["binary", "python 2", "python 3"])
@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_in_each_layout_of_its_authors(tmp_path, monkeypatch, classes, form):
    images, labels = make_cifar(tmp_path, classes, form)
    if form != "binary":
        publish(monkeypatch, next(tmp_path.iterdir()), classes)
    original = open_original(tmp_path)  # torchvision's root; its own folder will do too
    assert original.kind == f"cifar-{classes}"
    assert original.classes == tuple(f"class_{i}" for i in range(classes))
    assert same(original.splits["train"], images[:-3], labels[:-3])
    assert same(original.splits["val"], images[-3:], labels[-3:])
    again = pickle.loads(pickle.dumps(original))  # as a worker gets it
    assert same(again.splits["train"], images[:-3], labels[:-3])
    assert len(open_original(next(tmp_path.iterdir())).splits["train"]) == len(images) - 3


def test_the_binary_cifar_is_preferred_to_the_pickled_one(tmp_path):
    images, labels = make_cifar(tmp_path, 10, "binary")
    (tmp_path / "cifar-10-batches-py").mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(b"no pickle")
    assert same(open_original(tmp_path).splits["train"], images[:-3], labels[:-3])


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_pickle_that_is_not_the_one_cifars_authors_publish_is_not_read(
    tmp_path, monkeypatch, name
):
    make_cifar(tmp_path, 10, "python 2")
    folder = tmp_path / "cifar-10-batches-py"
    publish(monkeypatch, folder, 10)
    sentinel = tmp_path / "sentinel"
    (folder / name).write_bytes(pickle.dumps({"data": Touch(sentinel), "labels": []}))
    with pytest.raises(DataError, match="cifar-10-batches-py is missing or not the one"):
        open_original(tmp_path)
    assert not sentinel.exists()


def test_a_damaged_binary_cifar_is_refused(tmp_path):
    make_cifar(tmp_path, 10, "binary")
    batch = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"data_batch_3.bin .* records are not of 3073 bytes"):
        open_original(tmp_path)
    batch.unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3.bin of cifar-10"):
        open_original(tmp_path)
    batch.write_bytes(b"\xff" + whole[1:])
    with pytest.raises(DataError, match="labels outside of 10 classes"):
        open_original(tmp_path)


def test_two_data_sets_in_one_folder_are_refused(tmp_path, monkeypatch):
    make_cifar(tmp_path, 10, "binary")
    make_cifar(tmp_path, 100, "python 3")
    publish(monkeypatch, tmp_path / "cifar-100-python", 100)
    with pytest.raises(InputError, match="holds cifar-10 and cifar-100"):
        open_original(tmp_path)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("place", [".", "FashionMNIST/raw"])
def test_idx_files_plain_and_gzipped(tmp_path, ending, place):
    images, labels = RANDOM.integers(0, 256, (9, 28, 28), np.uint8), np.arange(9, dtype=np.uint8)
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    pack = gzip.compress if ending else bytes
    for name, part in (("train", slice(0, 6)), ("t10k", slice(6, 9))):
        (folder / f"{name}-images-idx3-ubyte{ending}").write_bytes(pack(idx(images[part])))
        (folder / f"{name}-labels-idx1-ubyte{ending}").write_bytes(pack(idx(labels[part])))
    original = pickle.loads(pickle.dumps(open_original(tmp_path)))
    assert same(original.splits["train"], images[:6], labels[:6])
    assert same(original.splits["val"], images[6:], labels[6:])
    named = original.classes and original.classes[9] == "Ankle boot"
    assert named if place != "." else original.classes is None


DAMAGED_IDX = {
    "cut off": lambda whole: gzip.compress(whole[:-10]),
    "cut off inside the compression": lambda whole: gzip.compress(whole)[:-20],
    "longer than it states": lambda whole: gzip.compress(whole + b"x"),
    "a bomb": lambda whole: gzip.compress(whole[:4] + b"\xff\xff\xff\xff\0\0\x10\0\0\0\x10\0"),
    "of another type": lambda whole: gzip.compress(b"\0\0\x0d" + whole[3:]),
    "images without pixels": lambda whole: gzip.compress(whole[:8] + bytes(8)),
    "not compressed at all": lambda whole: whole,
}


@pytest.mark.parametrize("case", DAMAGED_IDX)
def test_damaged_idx_files_are_refused(tmp_path, case):
    whole = idx(np.zeros((2, 4, 4), np.uint8))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(DAMAGED_IDX[case](whole))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(2, np.uint8))))
    with pytest.raises(DataError, match="train-images-idx3"):
        open_original(tmp_path)


def test_stl10_is_read_columns_first_and_its_unlabelled_images_apart(tmp_path):
    images = RANDOM.integers(0, 256, (6, 96, 96, 3), np.uint8)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for name, part in (("train", slice(0, 2)), ("test", slice(2, 4)), ("unlabeled", slice(4, 6))):
        (folder / f"{name}_X.bin").write_bytes(images[part].transpose(0, 3, 2, 1).tobytes())
    (folder / "train_y.bin").write_bytes(bytes([1, 10]))
    (folder / "test_y.bin").write_bytes(bytes([3, 4]))
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    original = open_original(tmp_path)
    assert same(original.splits["train"], images[:2], [0, 9])
    assert same(original.splits["val"], images[2:4], [2, 3])
    assert same(original.splits["unlabeled"], images[4:], [-1, -1])
    assert original.classes == tuple("abcdefghij")
    (folder / "train_y.bin").write_bytes(bytes([1]))
    with pytest.raises(DataError, match=r"holds 2 images, but .* 1 labels"):
        open_original(tmp_path)
    (folder / "train_y.bin").write_bytes(bytes([0, 10]))
    with pytest.raises(DataError, match="labels below 1"):
        open_original(tmp_path)


def test_a_hugging_face_folder(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    pngs = [random_png(i) for i in range(4)]
    features = datasets.Features(
        {"picture": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])}
    )
    rows = {"picture": [{"bytes": b, "path": None} for b in pngs], "label": [0, 1, 0, 1]}
    table = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "d")
    original = pickle.loads(pickle.dumps(open_original(tmp_path / "d")))
    train = original.splits["train"]
    assert [train.read(i) for i in range(4)] == pngs  # the very bytes
    assert train.labels.tolist() == [0, 1, 0, 1]
    assert original.classes == ("ant", "bee")
    assert original.splits["val"].read(0) == pngs[1]

    secret = tmp_path / "secret.png"
    secret.write_bytes(pngs[0])
    rows = {"picture": [{"bytes": None, "path": str(secret)}], "label": [0]}
    paths = datasets.Dataset.from_dict(rows, features=features)
    import pyarrow as pa

    paths.save_to_disk(tmp_path / "paths")  # embeds it: put the path back, as a stranger could
    (arrow,) = (tmp_path / "paths").glob("*.arrow")
    with pa.OSFile(str(arrow), "wb") as file, pa.ipc.new_stream(file, paths.data.schema) as out:
        out.write_table(paths.data.table)
    with pytest.raises(InputError, match="only their paths, which are not followed"):
        open_original(tmp_path / "paths")
