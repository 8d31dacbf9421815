"""Data sets on disk: `pack`, `index`, `inspect`."""

from __future__ import annotations

import itertools
import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simsiam_zoo.api.given import preset_of
from simsiam_zoo.errors import InputError

if TYPE_CHECKING:
    from simsiam_zoo.data.packing.writer import Original
    from simsiam_zoo.data.shards import Dataset, ShardSet
    from simsiam_zoo.data.stated import Scanned
    from simsiam_zoo.recipe import Recipe

_SAMPLED = 512  # images of each split that are looked at unless all are asked for


@dataclass(frozen=True)
class PackedData:
    """What was packed: `splits` has `samples`, `shards` and `bytes` by split.

    `damaged` images were left out, `damaged.jsonl` lists them; `already`: it was there before;
    `notes`: what was not read, and why.
    """

    folder: Path
    source: str
    splits: dict[str, dict[str, int]]
    classes: tuple[str, ...] | None = field(repr=False)
    damaged: int
    already: bool
    seconds: float
    notes: tuple[str, ...] = ()


def pack(
    source: Path | str,
    out: Path | str,
    *,
    shard_size: int = 1000,
    seed: int = 0,
    resize_short: int | None = None,
    limit: int | None = None,
    labels: bool = True,
    classes: Path | str | None = None,
    jobs: int | None = None,
    quiet: bool = False,
) -> PackedData:
    """Pack a data set on disk into WebDataset shards: `simsiam-zoo pack`.

    Every image is decoded to check it. The same call again goes on where an interrupted one
    stopped, and gives the same bytes.

    Args:
        source: a folder or an archive: CIFAR, MNIST, STL-10, a tree of images, ...
        out: a new folder.
        shard_size: images per shard.
        seed: decides the order of the images across shards.
        resize_short: shrink larger images to this short side in pixels.
        limit: so many random images of each split.
        labels: False leaves labels out; folders are no classes then.
        classes: a file with the classes' names, one per line.
        jobs: processes; by default as many as there are cores.
        quiet: show no progress.

    Raises:
        InputError: there is no data set that is known, or `out` is taken.
        DataError: it is damaged as a whole.
        StoppedError: a signal asked to stop.
    """
    from simsiam_zoo.data.packing.archives import unpacked
    from simsiam_zoo.data.packing.job import PackOptions, pack_original
    from simsiam_zoo.runtime.folders import expand_user
    from simsiam_zoo.runtime.machine import available_cores
    from simsiam_zoo.runtime.progress import open_progress

    began = time.monotonic()
    folder, given = expand_user(out), expand_user(source)
    options = PackOptions(seed, shard_size, resize_short, limit)
    beside = folder.with_name(f".{folder.name}.unpacked")
    with unpacked(given, beside, lambda: shutil.disk_usage(beside).free) as images:
        original = _original(images, labels, classes)
        progress = open_progress(quiet)
        packed = pack_original(original, folder, options, jobs or available_cores(), progress)
    splits = {
        {"val": "test"}.get(name, name): {  # the shards are called val, as those of others are
            "samples": split.samples,
            "shards": len(split.shards),
            "bytes": sum(shard.bytes for shard in split.shards),
        }
        for name, split in packed.splits.items()
    }
    seconds = round(time.monotonic() - began, 1)
    found = (packed.damaged, packed.already, seconds, tuple(original.notes))
    return PackedData(folder, original.kind, splits, original.classes, *found)


def _original(source: Path, labels: bool, classes: Path | str | None) -> Original:
    """The data set to be packed, with the classes' names in the file `classes`."""
    from simsiam_zoo.data.packing.formats import open_original

    original = open_original(source, labels=labels)
    if classes is not None:
        original = replace(original, classes=_class_names(Path(classes)))
    if original.classes is not None:
        highest = max(int(split.labels.max(initial=-1)) for split in original.splits.values())
        if highest >= len(original.classes):
            raise InputError(f"{len(original.classes)} class names, but a label {highest}")
    return original


def _class_names(path: Path) -> tuple[str, ...]:
    try:
        names = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"the classes' names in {path} cannot be read: {error}") from None
    return tuple(name.strip() for name in names if name.strip())


@dataclass(frozen=True)
class IndexedShards:
    """What was counted; `shards` has a dict for each shard, `warnings` what is odd about them."""

    samples: int
    bytes: int
    labelled: int
    shards: list[dict[str, Any]] = field(repr=False)
    folder: Path
    warnings: tuple[str, ...] = ()


def index(
    shards: Path | str,
    *,
    checksums: bool = False,
    out: Path | str | None = None,
    jobs: int | None = None,
    quiet: bool = False,
) -> IndexedShards:
    """Count and index shards of other makers: `simsiam-zoo index`.

    Args:
        shards: a folder, a tar, or a pattern.
        checksums: read all of it, so that later readers notice changed images.
        out: where the indexes go; by default beside the shards.
        jobs: processes; by default as many as there are cores.
        quiet: show no progress.

    Raises:
        InputError: there are no shards, or `out` is for those of several folders.
        DataError: a shard is damaged, or names a sample twice.
    """
    from simsiam_zoo.data.scan import describe_findings
    from simsiam_zoo.data.sources import all_shards
    from simsiam_zoo.data.stated import index_folder
    from simsiam_zoo.runtime.folders import expand_user
    from simsiam_zoo.runtime.machine import available_cores
    from simsiam_zoo.runtime.progress import open_progress

    paths = sorted(all_shards(str(shards)))
    folders = [[*group] for _, group in itertools.groupby(paths, lambda path: path.parent)]
    if out is not None and len(folders) > 1:
        raise InputError("--out takes the shards of one folder", "Index one folder at a time.")
    target = None if out is None else expand_user(out)
    found: list[Scanned] = []
    with open_progress(quiet) as progress:
        progress.begin("shards", len(paths))
        for group in folders:

            def dealt_with(done: int, before: int = len(found)) -> None:
                progress.advance(before + done)

            found += index_folder(group, target, checksums, jobs or available_cores(), dealt_with)
    told = tuple(describe_findings(one.findings for one in found))
    rows = [_shard(path, one) for path, one in zip(paths, found, strict=True)]
    samples, size, labelled = (
        sum(row[key] for row in rows) for key in ("samples", "bytes", "labelled")
    )
    return IndexedShards(samples, size, labelled, rows, target or paths[0].parent, told)


def _shard(path: Path, one: Scanned) -> dict[str, Any]:
    own = {"shard": str(path), **asdict(one.info), "labelled": one.labelled}
    return own | asdict(one.findings)


@dataclass(frozen=True)
class Inspection:
    """What is in shards, by split; `splits` has counts, sizes, formats, labels and what is damaged.

    `packed`: how they were packed, where `pack` did it; `drawn`: what the picture shows.
    """

    source: str
    notes: tuple[str, ...]
    packed: dict[str, Any] | None
    classes: tuple[str, ...] | None = field(repr=False)
    splits: dict[str, dict[str, Any]] = field(repr=False)
    drawn: tuple[str, ...] = ()

    @property
    def damaged(self) -> list[dict[str, Any]]:
        """The damaged images: `sample`, `problem`."""
        return [entry for split in self.splits.values() for entry in split["damaged"]]


def inspect(
    shards: Path | str,
    *,
    check: bool = False,
    grid: Path | str | None = None,
    preset: str | None = None,
    file: Path | str | None = None,
    jobs: int | None = None,
    quiet: bool = False,
) -> Inspection:
    """What is in shards, and what is wrong there: `simsiam-zoo inspect`.

    Args:
        shards: a folder, a tar, a pattern; or images, which are packed into the cache.
        check: decode every image, not only a sample of 512 of each split.
        grid: a PNG to draw images and their views in, as training makes them.
        preset, file: the recipe whose views are drawn; by default that of the preset `photos`.
        jobs: processes; by default as many as there are cores.
        quiet: show no progress.

    Raises:
        InputError: there are no shards, or the picture cannot be written.
        DataError: a shard as a whole cannot be read. Damaged images are `damaged`.
    """
    from simsiam_zoo.data.manifest import read_packed
    from simsiam_zoo.data.sources import open_shards
    from simsiam_zoo.recipe import Recipe

    if grid is None and (preset or file):
        raise InputError("--preset and --recipe are for the views that --grid draws")
    source = str(shards)
    dataset = open_shards(source)
    recipe = None
    if grid:
        settings = {"dataset": {"name": "shards", "path": source}}
        named = preset_of(settings, preset, None if file is None else str(file))
        recipe = Recipe.make(named, file, settings)
    splits = _splits(dataset, check, jobs, quiet)
    drawn = _draw(Path(grid), recipe, dataset.train) if grid and recipe else ()
    packed = read_packed(dataset.train.paths[0].parent)
    return Inspection(source, tuple(dataset.notes), packed, dataset.classes, splits, drawn)


def _splits(dataset: Dataset, check: bool, jobs: int | None, quiet: bool) -> dict[str, Any]:
    """What is in each split."""
    from simsiam_zoo.data.inspection import inspect_shards
    from simsiam_zoo.runtime.machine import available_cores
    from simsiam_zoo.runtime.progress import open_progress

    sets = {"train": dataset.train} | ({"test": dataset.test} if dataset.test else {})
    most = None if check else _SAMPLED
    total = sum(min(len(one), most or len(one)) for one in sets.values())
    # Starting processes costs more than a few images do.
    jobs = jobs or (available_cores() if total > 5_000 else 1)
    splits: dict[str, Any] = {}
    before = 0
    with open_progress(quiet) as progress:
        progress.begin("images", total)
        for name, one in sets.items():

            def looked(done: int, before: int = before) -> None:
                progress.advance(before + done)

            splits[name] = inspect_shards(one, most, jobs, looked)
            before += splits[name]["looked_at"]
    return splits


def _draw(path: Path, recipe: Recipe, shards: ShardSet) -> tuple[str, ...]:
    """Draw images and their views; in words what was drawn."""
    from simsiam_zoo.data.inspection import channels_of, contact_sheet
    from simsiam_zoo.runtime.folders import atomic_write, unwritable

    size = recipe.data.image_size
    augmentation = recipe.part("augmentation").create()
    stated = recipe.data.channels
    shards.channels = channels = stated if stated != 3 else channels_of(shards)
    sheet = contact_sheet(shards, augmentation, size, recipe.evaluation.crop, recipe.training.seed)
    try:
        with atomic_write(path) as out:
            sheet.save(out, "PNG")
    except OSError as error:
        raise unwritable(path, error) from None
    told = f"{path}: views of {recipe.augmentation.name} at {size} px"
    if channels == 3:
        return (told,)
    shown = "the first is drawn as grey" if channels < 3 else "the first three are drawn as RGB"
    return told, f"  of {channels} channels {shown}, brightened alike in each row"
