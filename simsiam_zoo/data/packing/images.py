"""Data sets of encoded images: a tree of files, or what Hugging Face `datasets` saved.

A tree is `train/CLASS/*.jpg` and `val/...`, `CLASS/*.jpg`, or flat and unlabelled. Regular files
that are JPEGs, PNGs or WebPs are taken, whatever they are called, and hidden ones are not; where
there are none of these, NumPy arrays and TIFFs are (`data.bands`). Links to files and to the
folders of classes are followed, links below those are not. Of saved tables only images that are
embedded are read: a path that a table names is not followed.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from simsiam_zoo.data.index import MAX_IMAGE_BYTES, UNLABELLED, printable
from simsiam_zoo.data.manifest import TEST, TRAIN
from simsiam_zoo.data.packing.writer import Original, OriginalSplit
from simsiam_zoo.data.scan import BAND_ENDINGS, IMAGE_ENDINGS, UNREAD_ENDINGS, image_format
from simsiam_zoo.errors import DataError, InputError

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")

Found = tuple[str, int]  # a path below the split's folder, and bytes


@dataclass
class _Tree:
    """What was met on the way through a tree."""

    unpacked: Counter[str] = field(default_factory=Counter)  # images of other kinds, by folder
    notes: list[str] = field(default_factory=list)
    bands: bool = False  # arrays and TIFFs are the images


def find_tree(source: Path, labels: bool = True, bands: bool = False) -> Original | None:
    """The images below `source`; with `bands`, or where there are none, its arrays and TIFFs.

    Raises InputError for images beside folders of images, a class that training lacks, folders that
    may be splits or classes, and images of other kinds alone; OSError for what cannot be read, or a
    class would be missing.
    """
    folders, tree = _splits(source, labels, bands)
    listed = {split: _list(folder, labels, tree) for split, folder in folders.items()}
    if not any(listed.values()) and not bands:
        return find_tree(source, labels, bands=True)
    if not any(listed.values()):
        if tree.unpacked:
            raise InputError(
                f"{source} holds {_images(tree.unpacked.total())}, and none is a JPEG, PNG or WebP",
                "Convert them, with ImageMagick say: mogrify -format jpg *.heic",
            )
        return None
    classes = sorted({name for name in listed["train"] if name is not None})
    if classes and (loose := listed.get("val", {}).get(None)):
        tree.notes.append(
            f"{folders['val'].name} holds {_images(len(loose))} in no folders of classes, packed"
            " without labels: nothing can be evaluated on them. Sort them into train's classes"
        )
    if len(classes) == 1 and (inner := _folders(alone := folders["train"] / classes[0])):
        tree.notes.append(
            f"one class alone, {printable(os.fsencode(classes[0]))}: if the folders in it are the"
            f" classes, {printable(os.fsencode(inner[0]))} say, name it: {shlex.quote(str(alone))}"
        )
    splits = {split: _Files(folders[split], found, classes) for split, found in listed.items()}
    if tree.unpacked:
        first = os.path.relpath(next(iter(tree.unpacked)), source)
        where = "" if first == "." else f"; the first in {printable(os.fsencode(first))}"
        tree.notes.append(
            f"not packed: {_images(tree.unpacked.total())} other than JPEG, PNG or WebP{where}"
        )
    shown = tuple(printable(os.fsencode(name)) for name in classes) or None
    return Original("image folder", splits, shown, tuple(tree.notes))


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _word(name: str) -> str:
    return name.lower() if name.lower() in TRAIN + TEST else ""


def _splits(source: Path, labels: bool, bands: bool) -> tuple[dict[str, Path], _Tree]:
    """The folder of each split, told by their names. Raises InputError where these do not tell."""
    names = _folders(source)
    trains = [name for name in names if _word(name) in TRAIN]
    tests = sorted((n for n in names if _word(n) in TEST), key=lambda n: TEST.index(_word(n)))
    tree = _Tree(bands=bands)
    if len(trains) > 1 or (tests and not trains and labels):
        what = f"has the folders {' and '.join(trains)}" if trains else f"has the folder {tests[0]}"
        raise InputError(
            f"{source} {what}: it is not clear what to train on",
            "Call one folder train; or, to pack one folder alone, name it.",
        )
    if not trains:
        inner = next((n for n in names for i in _folders(source / n) if _word(i) in TRAIN), None)
        if inner is not None and labels:
            raise InputError(
                f"{source / inner} holds splits, which would be taken for one class",
                f"Pack that folder: {source / inner}.",
            )
        said = [set(re.split(r"[^a-z]+", name.lower())) & {*TRAIN, *TEST} for name in names]
        if labels and all(said) and not set(TRAIN).isdisjoint(set().union(*said)):
            raise InputError(
                f"{source} has the folders {', '.join(names[:3])}: they look like splits, and would"
                " be taken for classes",
                f"Call them {TRAIN[0]} and {TEST[0]}; or, if they are classes, by other names.",
            )
        return {"train": source}, tree
    others = [name for name in names if not _word(name) and _holds_images(source / name, bands)]
    if others and labels and not tests:
        raise InputError(
            f"{source} has the folder {trains[0]} beside {', '.join(others[:3])}: it is not clear"
            " whether it is a split or a class",
            f"Pack {source / trains[0]}, or give a class another name.",
        )
    tree.notes += [f"not packed: the folder {name}, since {tests[0]} is" for name in tests[1:]]
    tree.notes += [f"not packed: the folder {name}, which is no split" for name in others]
    if loose := len(list(_files(source, "", tree))):
        tree.notes.append(f"not packed: {_images(loose)} beside the folder {trains[0]}")
    return {"train": source / trains[0]} | ({"val": source / tests[0]} if tests else {}), tree


def _holds_images(folder: Path, bands: bool) -> bool:
    tree = _Tree(bands=bands)
    return next(_walk(folder, "", tree), None) is not None or bool(tree.unpacked)


def _folders(folder: Path) -> list[str]:
    names = sorted(os.listdir(folder))
    return [name for name in names if not name.startswith(".") and (folder / name).is_dir()]


def _list(folder: Path, labels: bool, tree: _Tree) -> dict[str | None, list[Found]]:
    """The images of one split by class; all under None where they have none."""
    if not labels:
        flat = sorted(_walk(folder, "", tree))
        return {None: flat} if flat else {}
    beside = sorted(_files(folder, "", tree))
    names = _folders(folder)
    walked = {name: sorted(_walk(folder / name, name + "/", tree)) for name in names}
    by_class: dict[str | None, list[Found]] = {n: images for n, images in walked.items() if images}
    if beside and by_class:
        folders = f"{len(by_class)} folder{'s' * (len(by_class) != 1)}"
        raise InputError(
            f"{folder} holds {_images(len(beside))} beside {folders} of images",
            "Folders are classes. Name one folder; or take all of them without labels, by"
            " `simsiam-zoo pack --no-labels`.",
        )
    if by_class and (empty := [name for name in names if name not in by_class]):
        more = f" and {len(empty) - 1:,} more" if len(empty) > 1 else ""
        tree.notes.append(
            f"no class: the folder {printable(os.fsencode(empty[0]))}{more}, in which no image can"
            " be packed"
        )
    return {None: beside} if beside else by_class


def _walk(folder: Path, prefix: str, tree: _Tree) -> Iterator[Found]:
    for at, folders, _ in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(at, folder)
        yield from _files(Path(at), prefix if below == "." else f"{prefix}{below}/", tree)


def _raise(error: OSError) -> NoReturn:
    raise error


def _files(folder: Path, prefix: str, tree: _Tree) -> Iterator[Found]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.is_file():  # a pipe, a dangling link
                continue
            ending = os.fsencode(os.path.splitext(entry.name)[1][1:].lower())
            if tree.bands and ending in BAND_ENDINGS:
                yield prefix + entry.name, entry.stat().st_size
            elif ending in UNREAD_ENDINGS:
                tree.unpacked[str(folder)] += 1
            elif ending in IMAGE_ENDINGS or _is_image(entry.path):
                yield prefix + entry.name, entry.stat().st_size


def _is_image(path: str) -> bool:
    """Whether a file is an image, whatever it is called."""
    with open(path, "rb") as file:
        return bool(image_format(file.read(12)))


class _Files(OriginalSplit):
    """The images of one split by class, and the names of training's classes."""

    def __init__(
        self, folder: Path, found: dict[str | None, list[Found]], classes: list[str]
    ) -> None:
        place: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
        place[None] = UNLABELLED
        if strange := [name for name in found if name not in place]:
            more = f" and {len(strange) - 1:,} more" if len(strange) > 1 else ""
            raise InputError(
                f"{folder} has the class {printable(os.fsencode(strange[0] or ''))}{more}, which"
                " train has not",
                f"Name {folder.name}'s folders as train's, or pack the folder train alone.",
            )
        self._folder = folder
        self._paths = [path for images in found.values() for path, _ in images]
        sizes = [size for images in found.values() for _, size in images]
        self.sizes = np.array(sizes, np.int64)
        labels = [place[name] for name, images in found.items() for _ in images]
        self.labels = np.array(labels, np.int64)

    def key(self, i: int) -> str:
        """A number, and as much of the file's name as is harmless in a tar: `00000007-n01_44`."""
        stem = os.path.splitext(os.path.basename(self._paths[i]))[0]
        return f"{i:08d}-{_UNSAFE.sub('_', stem)[:60]}"

    def name(self, i: int) -> str:
        """The path below the split's folder."""
        return printable(os.fsencode(self._paths[i]))

    def read(self, i: int) -> bytes:
        """The file's bytes. An OSError is no damage of the image, and ends the packing."""
        with (self._folder / self._paths[i]).open("rb") as file:
            content = file.read(MAX_IMAGE_BYTES + 1)
        if len(content) > MAX_IMAGE_BYTES:
            raise DataError(f"an image of over {MAX_IMAGE_BYTES:,} bytes is refused")
        return content


def find_saved(source: Path) -> Original | None:
    """What `save_to_disk` of Hugging Face `datasets` (an extra) wrote into `source`.

    Raises InputError without `datasets` or a column of images, DataError where it is damaged.
    """
    if not any((source / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return None
    try:
        from datasets import DatasetDict, load_from_disk
    except ImportError:
        raise InputError(
            f"{source} was saved by Hugging Face datasets, which is not installed",
            "pip install 'simsiam-zoo[datasets]'",
        ) from None
    try:
        loaded = load_from_disk(str(source), keep_in_memory=False)
    except Exception as error:  # what damaged tables raise is not listed anywhere
        raise DataError(f"{source} cannot be read: {error}") from None
    named = dict(loaded) if isinstance(loaded, DatasetDict) else {"train": loaded}
    taken = {"train": "train"} if "train" in named else {}
    if test := next((name for name in TEST if name in named), None):
        taken["val"] = test
    if not taken:
        raise InputError(f"{source} has neither a train nor a test split", "Save it as one.")
    left = sorted(named.keys() - set(taken.values()))
    notes = tuple(f"the split {printable(name.encode())} is not packed" for name in left)
    image, label, classes = _columns(source, named[next(iter(taken.values()))])
    splits = {to: _Table(source, named[name], image, label) for to, name in taken.items()}
    return Original("hugging face datasets", splits, classes, notes)


def _columns(source: Path, table: Any) -> tuple[str, str | None, tuple[str, ...] | None]:
    """The column of images, that of labels, and the names of the classes."""
    from datasets import ClassLabel
    from datasets import Image as ImageFeature

    features = table.features
    images = [name for name, kind in features.items() if isinstance(kind, ImageFeature)]
    if not images:
        raise InputError(f"{source} has no column of images among {', '.join(features)}")
    labels = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    if not labels:
        integer = str(getattr(features.get("label"), "dtype", "")).startswith(("int", "uint"))
        return images[0], "label" if integer else None, None
    label = "label" if "label" in labels else labels[0]
    names = tuple(printable(name.encode("utf-8", "replace")) for name in features[label].names)
    return images[0], label, names


class _Table(OriginalSplit):
    def __init__(self, source: Path, table: Any, image: str, label: str | None) -> None:
        from datasets import Image as ImageFeature

        self._table, self._image = table.cast_column(image, ImageFeature(decode=False)), image
        self.labels = np.full(len(table), UNLABELLED, np.int64)
        if label is not None and len(table):
            found = table.with_format("numpy", columns=[label])[label][:]
            self.labels = np.maximum(np.asarray(found).astype(np.int64), UNLABELLED)
        first = self._table[0][image] if len(table) else None
        if first and not first["bytes"]:
            raise InputError(
                f"the images of {source} are not in it, only their paths, which are not followed",
                "Save it with the images embedded: Dataset.save_to_disk does.",
            )

    def name(self, i: int) -> str:
        """`row 17`."""
        return f"row {i}"

    def read(self, i: int) -> bytes:
        """The image's bytes."""
        content = self._table[i][self._image]
        if not content or not content["bytes"]:
            raise DataError("there is no image in this row")
        return bytes(content["bytes"])
