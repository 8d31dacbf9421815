"""`simsiam-zoo embed`: a run's features of every image, in a file."""

from __future__ import annotations

from typing import Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_json, print_line


@click.command()
@click.argument("run")
@options.data(options.OTHER_DATA_HELP)
@click.option("--out", metavar="FILE", required=True, help="A file .npz or .parquet.")
@click.option(
    "--of",
    type=click.Choice(["backbone", "z", "p"]),
    default="backbone",
    help="The backbone's output (default), the projector's z or the predictor's p.",
)
@click.option(
    "--split",
    type=click.Choice(["all", "train", "test", "validation"]),
    default="all",
    metavar="NAME",
    help="Which images: all (default), train, test or validation.",
)
@click.option("--skip-damaged", is_flag=True, help="Leave damaged images out; default: stop.")
@options.device
@options.plugin_files
@options.as_json("a summary")
@options.quiet
def embed(run: str, out: str, of: Any, as_json: bool, **asked: Any) -> None:
    """Compute the features that RUN's frozen network gives every image, and write them down.

    RUN is the folder of a run. The file holds features, labels (-1 for none), ids, keys, shards and
    class names, and what they were computed with. Images need no labels.

    \b
    Examples:
      simsiam-zoo embed runs/digits-seed0 --out features.npz
      simsiam-zoo embed runs/digits-seed0 --data ./shards --out z.parquet --of z
    """
    from simsiam_zoo.api.features import embed as compute

    found = compute(run, out, of=of, **asked)
    images = {name: len(embedding.ids) for name, embedding in found.splits.items()}
    width = next(iter(found.splits.values())).x.shape[1]
    if as_json:
        summary = {"file": out, "images": images, "width": width, "damaged": found.damaged}
        print_json(summary | found.metadata)
        return
    counts = " and ".join(f"{count:,} {name}" for name, count in images.items())
    print_line(f"{out}: {of} features of {counts} images, {width:,} numbers each")
    for name in found.damaged:
        print_line(f"left out, damaged: {name}", err=True)
