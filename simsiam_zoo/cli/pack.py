"""`simsiam-zoo pack`: a data set on disk becomes shards."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from simsiam_zoo.cli.text import print_columns, print_heading, print_line
from simsiam_zoo.errors import InputError, StoppedError
from simsiam_zoo.runtime.folders import expand_user

_CLASSES_SHOWN = 10
_COUNT = click.IntRange(1)


@click.command(short_help="Turn a data set on disk into shards.")
@click.argument("source")
@click.argument("out")
@click.option(
    "--shard-size", type=_COUNT, default=1000, metavar="N", help="Images per shard (default: 1000)."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    metavar="N",
    help="Decides the order of the images across shards (default: 0).",
)
@click.option(
    "--resize-short",
    type=_COUNT,
    metavar="N",
    help="Shrink larger images to this short side in pixels.",
)
@click.option("--limit", type=_COUNT, metavar="N", help="Pack N random images of each split.")
@click.option("--no-labels", is_flag=True, help="Leave labels out; folders are no classes.")
@click.option("--classes", metavar="FILE", help="Names of the classes, one per line.")
@click.option("--jobs", type=_COUNT, metavar="N", help="Processes (default: all cores).")
@click.option("--json", "as_json", is_flag=True, help="Print what was packed as JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def pack(
    source: str,
    out: str,
    shard_size: int,
    seed: int,
    resize_short: int | None,
    limit: int | None,
    no_labels: bool,
    classes: str | None,
    jobs: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Pack the data set in the folder SOURCE into WebDataset shards in the new folder OUT.

    SOURCE is CIFAR-10, CIFAR-100, MNIST, Fashion-MNIST or STL-10 as it is downloaded or as
    torchvision keeps it, a folder that Hugging Face datasets saved, or a tree of images:
    train/CLASS/*.jpg and val/CLASS/*.jpg, CLASS/*.jpg, or *.jpg without labels. Or a .zip, .tar.gz,
    .tar.bz2 or .tar.xz of one of these.

    Every image is decoded to check it; damaged ones are listed and left out. The same call again
    goes on where an interrupted one stopped, and gives the same bytes.

    \b
    Examples:
      simsiam-zoo pack data/cifar-10-batches-py data/cifar10
      simsiam-zoo pack ImageNet imagenet-256 --resize-short 256 --shard-size 10000
    """
    from simsiam_zoo.data.packing.archives import unpacked
    from simsiam_zoo.data.packing.job import DAMAGED, PackOptions, pack_original
    from simsiam_zoo.runtime.machine import available_cores
    from simsiam_zoo.runtime.progress import StopRequest, open_progress

    began = time.monotonic()
    folder, given = expand_user(out), expand_user(source)
    options = PackOptions(seed, shard_size, resize_short, limit)
    beside = folder.with_name(f".{folder.name}.unpacked")
    with unpacked(given, beside, lambda: shutil.disk_usage(beside).free) as images:
        original = _open(images, not no_labels, classes, quiet)
        total = sum(min(len(split), limit or len(split)) for split in original.splits.values())
        with StopRequest() as stop, open_progress(quiet) as progress:
            progress.begin("images", total)

            def dealt_with(done: int) -> bool:
                progress.advance(done)
                return stop.requested

            packed = pack_original(original, folder, options, jobs or available_cores(), dealt_with)
    if packed is None:
        raise StoppedError(f"packing {folder} was stopped", "The same command again goes on.")
    if packed.damaged:
        told = f"{packed.damaged:,} of {total:,} images are damaged and were not packed"
        click.echo(f"warning: {told}; {folder / DAMAGED} lists them", err=True)
    report = _report(original, folder, packed, time.monotonic() - began)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print(report, original.classes or ())


def _open(source: Path, labels: bool, classes: str | None, quiet: bool) -> Any:
    """The data set to be packed, with the classes' names in the file `classes`; its notes told."""
    from simsiam_zoo.data.packing.formats import open_original

    original = open_original(source, labels=labels)
    if classes is not None:
        original = replace(original, classes=_class_names(Path(classes)))
    if original.classes is not None:
        highest = max(int(split.labels.max(initial=-1)) for split in original.splits.values())
        if highest >= len(original.classes):
            raise InputError(f"{len(original.classes)} class names, but a label {highest}")
    for note in () if quiet else original.notes:
        click.echo(f"note: {note}", err=True)
    return original


def _class_names(path: Path) -> tuple[str, ...]:
    try:
        names = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"the classes' names in {path} cannot be read: {error}") from None
    return tuple(name.strip() for name in names if name.strip())


def _report(original: Any, folder: Path, packed: Any, seconds: float) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "source": original.kind,
        "splits": {
            name: {
                "samples": split.samples,
                "shards": len(split.shards),
                "bytes": sum(shard.bytes for shard in split.shards),
            }
            for name, split in packed.splits.items()
        },
        "classes": original.classes and len(original.classes),
        "damaged": packed.damaged,
        "already": packed.already,
        "seconds": round(seconds, 1),
    }


def _print(report: dict[str, Any], classes: tuple[str, ...]) -> None:
    done = "was packed before" if report["already"] else f"{report['seconds']:.0f} s"
    print_heading(f"{report['source']} → {report['folder']} ({done})")
    rows = [
        (
            name,
            *(f"{n:,}" for n in (split["samples"], split["shards"], round(split["bytes"] / 1e6))),
        )
        for name, split in report["splits"].items()
    ]
    print_columns(rows, right=True)
    if classes:
        more = ", ..." if len(classes) > _CLASSES_SHOWN else ""
        print_line(f"  {len(classes):,} classes: {', '.join(classes[:_CLASSES_SHOWN])}{more}")
    print_line(f"  simsiam-zoo inspect {report['folder']}")
