"""`simsiam-zoo look`: a run as one page that opens offline."""

from __future__ import annotations

from typing import Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_json, print_line


@click.command()
@click.argument("run")
@click.option("--out", metavar="FILE", help="The page (default: look.html in RUN).")
@options.opened("page")
@options.data(options.OTHER_DATA_HELP)
@click.option(
    "--images",
    type=click.IntRange(min=10),
    default=10_000,
    metavar="N",
    help="Most images of each split that are looked at (default: 10,000).",
)
@click.option(
    "--map",
    "method",
    type=click.Choice(["auto", "umap", "tsne", "pca"]),
    default="auto",
    help="How features are laid out (default: umap if it is installed, else tsne).",
)
@options.device
@options.plugin_files
@options.as_json("where the page is")
@options.quiet
def look(run: str, out: str | None, opened: bool, as_json: bool, **asked: Any) -> None:
    """Put a run on one HTML page: curves, a map of features, neighbours, confusions, the recipe.

    RUN is the folder of a run, complete or not. The page holds its images and fetches nothing: it
    opens offline and can be passed on as one file.

    \b
    Examples:
      simsiam-zoo look runs/digits-seed0
      simsiam-zoo look runs/digits-seed0 --out digits.html --open
    """
    from simsiam_zoo.api.features import look as write_page

    page = write_page(run, out, **asked)
    for note in page.notes:
        print_line(note, err=True)
    size = page.path.stat().st_size
    if as_json:
        print_json({"page": str(page.path), "bytes": size, "notes": [*page.notes]})
    else:
        print_line(f"{page.path}: {size / 1e6:.1f} MB, opens offline")
    if opened:
        page.open()
