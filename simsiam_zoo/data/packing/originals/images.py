"""A tree of image files: `train/CLASS/*.jpg` and `val/...`, `CLASS/*.jpg`, or flat and unlabelled.

Only regular files with the name of a JPEG, PNG or WebP are taken, hidden ones are not. Links to
files and to the folders of classes are followed, links below those are not. What a file is called
decides whether it is looked at; what is in it decides what it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np

from simsiam_zoo.data.index import MAX_IMAGE_BYTES, UNLABELLED, printable
from simsiam_zoo.data.packing.originals import Original, OriginalSplit
from simsiam_zoo.errors import DataError, InputError

_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
_OTHERS = (".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".heic", ".avif")
_TESTS = ("val", "validation", "valid", "test")

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")

Found = tuple[str, int]  # a path below the split's folder, and bytes


def find_tree(source: Path, labels: bool = True) -> Original | None:
    """The images below `source`.

    Raises:
        InputError: there are images beside folders of images, or a class that training lacks.
    """
    train = source / "train"
    folders = {"train": train if train.is_dir() else source}
    tests = [source / name for name in _TESTS if (source / name).is_dir()]
    if train.is_dir() and tests:
        folders["val"] = tests[0]
    notes = [f"{path} is not packed: {tests[0].name} is" for path in tests[1:] if train.is_dir()]
    listed = {split: _list(folder, labels, notes) for split, folder in folders.items()}
    if not any(listed.values()):
        return None
    classes = sorted({name for name in listed["train"] if name is not None})
    splits = {
        split: _Files(folders[split], _numbered(split, folders[split], found, classes))
        for split, found in listed.items()
    }
    shown = tuple(printable(os.fsencode(name)) for name in classes) or None
    return Original("image folder", splits, shown, tuple(notes))


def _list(folder: Path, labels: bool, notes: list[str]) -> dict[str | None, list[Found]]:
    """The images of one split by class; all under None where they have none."""
    unpacked = [0]
    if not labels:
        flat = sorted(_walk(folder, "", unpacked))
        found: dict[str | None, list[Found]] = {None: flat} if flat else {}
    else:
        beside = sorted(_files(folder, "", unpacked))
        by_class: dict[str | None, list[Found]] = {
            name: images
            for name in sorted(os.listdir(folder))
            if not name.startswith(".") and (folder / name).is_dir()
            if (images := sorted(_walk(folder / name, name + "/", unpacked)))
        }
        if beside and by_class:
            raise InputError(
                f"{folder} holds {len(beside)} images beside {len(by_class)} folders of images",
                "Folders are classes. Name one folder, or say --no-labels to take all of them.",
            )
        found = {None: beside} if beside else by_class
    if unpacked[0]:
        notes.append(
            f"{folder} holds {unpacked[0]:,} images that are no {', '.join(_ENDINGS)}: not packed"
        )
    return found


def _walk(folder: Path, prefix: str, unpacked: list[int]) -> Iterator[Found]:
    for at, folders, _ in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(at, folder)
        yield from _files(Path(at), prefix if below == "." else f"{prefix}{below}/", unpacked)


def _refuse(error: OSError) -> NoReturn:
    """A folder that cannot be read is no folder without images: its class would be missing."""
    raise InputError(
        f"{os.fsdecode(error.filename)} cannot be read: {error.strerror}",
        "Give yourself the right to read it, or pack another folder.",
    ) from None


def _files(folder: Path, prefix: str, unpacked: list[int]) -> Iterator[Found]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.lower()
            if name.startswith(".") or not name.endswith(_ENDINGS + _OTHERS):
                continue
            if not entry.is_file():  # a pipe, a device, a dangling link
                continue
            if name.endswith(_OTHERS):
                unpacked[0] += 1
            else:
                yield prefix + entry.name, entry.stat().st_size


def _numbered(
    split: str, folder: Path, found: dict[str | None, list[Found]], classes: list[str]
) -> list[tuple[str, int, int]]:
    """(path, bytes, label) of every image."""
    place = {name: i for i, name in enumerate(classes)}
    strange = [name for name in found if name is not None and name not in place]
    if strange:
        raise InputError(
            f"{folder} has {len(strange)} classes that train has not, the first is"
            f" {printable(os.fsencode(strange[0]))}",
            f"Name {split}'s folders as train's, or pack the folder train alone.",
        )
    return [
        (path, size, UNLABELLED if name is None else place[name])
        for name, images in found.items()
        for path, size in images
    ]


class _Files(OriginalSplit):
    def __init__(self, folder: Path, images: list[tuple[str, int, int]]) -> None:
        self._folder = folder
        self._paths = [path for path, _, _ in images]
        self.sizes = np.array([size for _, size, _ in images], np.int64)
        self.labels = np.array([label for _, _, label in images], np.int64)

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
