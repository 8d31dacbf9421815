"""`simsiam-zoo index`: counts and indexes for shards of other makers."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from simsiam_zoo.cli.text import print_heading, print_line
from simsiam_zoo.runtime.folders import expand_user


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
    from simsiam_zoo.data.scan import describe_findings
    from simsiam_zoo.data.sources import all_shards
    from simsiam_zoo.data.stated import Scanned, index_folder
    from simsiam_zoo.errors import InputError
    from simsiam_zoo.runtime.machine import available_cores
    from simsiam_zoo.runtime.progress import open_progress

    paths = sorted(all_shards(shards))
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
    for line in describe_findings(one.findings for one in found):
        print_line(f"warning: {line}", err=True)
    report = _report(paths, found)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    print_heading(f"{shards}: {report['samples']:,} images in {len(found):,} shards")
    print_line(f"  labelled   {report['labelled']:,}")
    print_line(f"  bytes      {report['bytes']:,}")
    print_line(f"  checksums  {'of every image' if checksums else 'not taken'}")
    print_line(f"  written    {target or paths[0].parent}")


def _report(paths: list[Path], found: list[Any]) -> dict[str, Any]:
    shards = [
        {"shard": str(path), **asdict(one.info), "labelled": one.labelled, **asdict(one.findings)}
        for path, one in zip(paths, found, strict=True)
    ]
    totals = {key: sum(s[key] for s in shards) for key in ("samples", "bytes", "labelled")}
    return {**totals, "shards": shards}
