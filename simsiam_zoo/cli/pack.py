"""`simsiam-zoo pack`: a data set on disk becomes shards."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from simsiam_zoo.cli.text import print_columns, print_heading, print_line

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
    from simsiam_zoo.api.data import pack as pack_data

    packed = pack_data(
        source,
        out,
        shard_size=shard_size,
        seed=seed,
        resize_short=resize_short,
        limit=limit,
        labels=not no_labels,
        classes=classes,
        jobs=jobs,
        quiet=quiet,
    )
    if packed.damaged:
        total = packed.damaged + sum(split["samples"] for split in packed.splits.values())
        told = f"{packed.damaged:,} of {total:,} images are damaged and were not packed"
        click.echo(f"warning: {told}; {packed.folder / 'damaged.jsonl'} lists them", err=True)
    report = asdict(packed) | {"folder": str(packed.folder)}
    report["classes"] = packed.classes and len(packed.classes)
    del report["notes"]  # they were told
    if as_json:
        click.echo(json.dumps(report, indent=2))
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
    print_columns([("", "images", "shards", "MB"), *rows], right=True)
    if classes:
        more = ", ..." if len(classes) > _CLASSES_SHOWN else ""
        print_line(f"  {len(classes):,} classes: {', '.join(classes[:_CLASSES_SHOWN])}{more}")
    print_line(f"  simsiam-zoo inspect {report['folder']}")
