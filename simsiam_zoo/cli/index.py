"""`simsiam-zoo index`: counts and indexes for shards of other makers."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from simsiam_zoo.cli.text import print_heading, print_line

_REPORTED = ("samples", "bytes", "labelled", "shards")


@click.command(short_help="Count and index shards of other makers.")
@click.argument("shards")
@click.option(
    "--checksums", is_flag=True, help="Read all of it; later readers notice changed images."
)
@click.option("--out", metavar="FOLDER", help="Write there (default: beside the shards).")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Processes (default: all cores).")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def index(
    shards: str, checksums: bool, out: str | None, jobs: int | None, as_json: bool, quiet: bool
) -> None:
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

    found = index_shards(shards, checksums=checksums, out=out, jobs=jobs, quiet=quiet)
    for line in found.warnings:
        print_line(f"warning: {line}", err=True)
    if as_json:
        report = asdict(found)
        click.echo(json.dumps({key: report[key] for key in _REPORTED}, indent=2))
        return
    print_heading(f"{shards}: {found.samples:,} images in {len(found.shards):,} shards")
    print_line(f"  labelled   {found.labelled:,}")
    print_line(f"  bytes      {found.bytes:,}")
    print_line(f"  checksums  {'of every image' if checksums else 'not taken'}")
    print_line(f"  written    {found.folder}")
