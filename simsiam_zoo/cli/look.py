"""`simsiam-zoo look`: a run as one page that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_line
from simsiam_zoo.errors import ZooError


@click.command(short_help="Show a run as one page that opens offline.")
@click.argument("run")
@click.option("--out", metavar="FILE", help="The page (default: look.html in RUN).")
@click.option("--open", "opened", is_flag=True, help="Open the page in the browser.")
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
@options.quiet
def look(
    run: str,
    out: str | None,
    opened: bool,
    data: str | None,
    images: int,
    method: Any,
    device: str | None,
    quiet: bool,
) -> None:
    """Put a run on one HTML page: curves, a map of features, neighbours, confusions, the recipe.

    RUN is the folder of a run, complete or not. The page holds its images and fetches nothing: it
    opens offline and can be passed on as one file.

    \b
    Examples:
      simsiam-zoo look runs/digits-seed0
      simsiam-zoo look runs/digits-seed0 --out digits.html --open
    """
    from simsiam_zoo.report.collect import choose_method, collect_run_page
    from simsiam_zoo.report.features import open_network, open_run_data
    from simsiam_zoo.report.run_page import render_run
    from simsiam_zoo.runtime.folders import check_out, save_text
    from simsiam_zoo.runtime.progress import open_progress
    from simsiam_zoo.training.run import load

    found = load(run)
    path = Path(out) if out else found.folder / "look.html"
    check_out(path)
    choose_method(method)  # a missing package is told before the work, not after it
    sight, notes = None, []
    try:
        with open_progress(quiet) as progress:
            network = open_network(found, "backbone", device, progress)
            dataset = open_run_data(found, data)
            sight = collect_run_page(network, dataset, most=images, method=method)
    except ZooError as error:
        if data is not None or device is not None:
            raise
        notes.append(f"The images could not be looked at: {error.what}")
        print_line(f"without images: {error}", err=True)
    page = render_run(found, sight, notes)
    save_text(path, page)
    print_line(f"{path}: {len(page.encode()) / 1e6:.1f} MB, opens offline")
    if opened:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
