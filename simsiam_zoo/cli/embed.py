"""`simsiam-zoo embed`: a run's features of every image, in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_line
from simsiam_zoo.errors import InputError


@click.command(short_help="Write a run's features of every image to a file.")
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
@options.as_json("a summary")
@options.quiet
def embed(
    run: str,
    data: str | None,
    out: str,
    of: Any,
    split: str,
    skip_damaged: bool,
    device: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compute the features that RUN's frozen network gives every image, and write them down.

    RUN is the folder of a run. The file holds features, labels (-1 for none), ids, keys, shards and
    class names, and what they were computed with. Images need no labels.

    \b
    Examples:
      simsiam-zoo embed runs/digits-seed0 --out features.npz
      simsiam-zoo embed runs/digits-seed0 --data ./shards --out z.parquet --of z
    """
    from simsiam_zoo.report import features
    from simsiam_zoo.runtime.progress import open_progress
    from simsiam_zoo.training.run import load

    path = Path(out)
    features.check_feature_path(path)
    found = load(run)
    dataset = features.open_run_data(found, data)
    both = {"train": dataset.train, dataset.measured_on: dataset.test}
    sets = {n: s for n, s in both.items() if s is not None and split in ("all", n)}
    if not sets:
        raise InputError(f"there are no {split} images in this data", "Leave out --split.")
    with open_progress(quiet) as progress:
        network = features.open_network(found, of, device, progress)
        parts = [
            (name, features.embed(network, s, what=f"{name} images", skip_damaged=skip_damaged))
            for name, s in sets.items()
        ]
    metadata = {
        "run": found.lock.get("identity"),
        "of": of,
        "backbone": found.recipe.part("backbone").id,
        **features.describe(network),
        "data": {name: shards.digest for name, shards in sets.items()},
    }
    features.write_features(path, parts, dataset.classes or (), metadata)
    damaged = [name for _, embedding in parts for name in embedding.damaged]
    images = {name: len(embedding.ids) for name, embedding in parts}
    width = parts[0][1].x.shape[1]
    if as_json:
        summary = {"file": str(path), "images": images, "width": width, "damaged": damaged}
        click.echo(json.dumps(summary | metadata, indent=2))
        return
    counts = " and ".join(f"{count:,} {name}" for name, count in images.items())
    print_line(f"{path}: {of} features of {counts} images, {width:,} numbers each")
    for name in damaged:
        print_line(f"left out, damaged: {name}", err=True)
