"""`simsiam-zoo export`: a run's backbone for other libraries."""

from __future__ import annotations

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_heading, print_json, print_line


@click.command()
@click.argument("run", metavar="RUN")
@options.spec(
    "--to", kind="format", metavar="FORMAT", required=True, help="What it is to be loaded by."
)
@click.option("--out", metavar="PATH", help="Write there (default: in the run, exports/).")
@options.plugin_files
@options.as_json("what was written")
def export(run: str, to: str, out: str | None, as_json: bool) -> None:
    """Write the backbone of RUN for another library, and check it there.

    What was written is loaded again as its users will, and compared with the run's own backbone on
    random images; if its features differ, nothing is left behind. The Python that loads it is
    printed. `simsiam-zoo list formats` shows the formats; the package simsiam-zoo-export adds onnx,
    pt2 and hub.

    \b
    Examples:
      simsiam-zoo export runs/mnist-5k-seed0 --to timm
      simsiam-zoo export runs/mnist-5k-seed0 --to torchvision --out resnet.pth
    """
    from simsiam_zoo.api.measure import export as write

    done = write(run, to, out)
    if as_json:
        report = {"path": str(done.path), "to": to, "max_abs_difference": done.difference}
        report |= {"max_abs_feature": done.largest, "python": done.code}
        print_json(report)
        return
    print_heading(str(done.path))
    print_line(
        f"  loaded again, its features differ from the run's by {done.difference:.2g} at most"
        f" (the largest is {done.largest:.2g})"
    )
    print_line()
    print_heading("Python, for images [N, 3, H, W]")
    for line in done.code.splitlines():
        print_line(f"  {line}")
