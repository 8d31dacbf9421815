"""`simsiam-zoo index`: counts and indexes for shards of other makers."""

from __future__ import annotations

from typing import Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_heading, print_json, print_line

_REPORTED = ("samples", "bytes", "labelled", "shards")


@click.command()
@click.argument("shards")
@click.option(
    "--checksums", is_flag=True, help="Read all of it; later readers notice changed images."
)
@click.option("--out", metavar="FOLDER", help="Write there (default: beside the shards).")
@options.jobs
@options.as_json("what was found")
@options.quiet
def index(shards: str, checksums: bool, as_json: bool, **asked: Any) -> None:
    """Scan SHARDS and write down what reading them exactly needs.

    SHARDS is a folder, a tar, or a pattern. Beside each shard an index is written, and the counts
    into manifest.json; upload those with the shards to read them from elsewhere. A shard that
    names a sample twice or is damaged is refused, and then no counts are written.

    \b
    Examples:
      simsiam-zoo index data/laion
      simsiam-zoo index 'data/imagenet-train-{0000..0146}.tar' --checksums
    """
    from simsiam_zoo.api.data import index as index_shards

    found = index_shards(shards, checksums=checksums, **asked)
    for line in found.warnings:
        print_line(f"warning: {line}", err=True)
    if as_json:
        print_json({key: getattr(found, key) for key in _REPORTED})
        return
    print_heading(f"{shards}: {found.samples:,} images in {len(found.shards):,} shards")
    print_line(f"  labelled   {found.labelled:,}")
    print_line(f"  bytes      {found.bytes:,}")
    taken = all(shard["sha256"] for shard in found.shards)  # now or before
    print_line(f"  checksums  {'of every image' if taken else 'not taken'}")
    print_line(f"  written    {found.folder}")
