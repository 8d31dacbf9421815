"""`simsiam-zoo pack`: a data set on disk becomes shards."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_figures, print_heading, print_json, print_line

_CLASSES_SHOWN = 10
_COUNT = click.IntRange(1)


@click.command()
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
@options.jobs
@options.as_json("what was packed")
@options.quiet
def pack(source: str, out: str, no_labels: bool, as_json: bool, **asked: Any) -> None:
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
    from simsiam_zoo.api.data import pack as pack_data

    packed = pack_data(source, out, labels=not no_labels, **asked)
    if packed.damaged:
        total = packed.damaged + sum(split["samples"] for split in packed.splits.values())
        told = f"{packed.damaged:,} of {total:,} images are damaged and were not packed"
        print_line(f"warning: {told}; {packed.folder / 'damaged.jsonl'} lists them", err=True)
    report = asdict(packed) | {"folder": str(packed.folder)}
    report["classes"] = packed.classes and len(packed.classes)
    del report["notes"]  # they were told
    if as_json:
        print_json(report)
    else:
        _print(report, packed.classes or ())


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
    print_figures([("", "images", "shards", "MB"), *rows])
    if classes:
        more = ", ..." if len(classes) > _CLASSES_SHOWN else ""
        print_line(f"  {len(classes):,} classes: {', '.join(classes[:_CLASSES_SHOWN])}{more}")
    print_line(f"  simsiam-zoo inspect {shlex.quote(report['folder'])}")
