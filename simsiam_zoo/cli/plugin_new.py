"""`simsiam-zoo plugin new`: a package that builds, installs, conforms and trains, unedited."""

from __future__ import annotations

from pathlib import Path

import click

from simsiam_zoo.catalog import KINDS, canonical_name
from simsiam_zoo.cli.completion import complete_kind, singular
from simsiam_zoo.cli.text import print_line
from simsiam_zoo.errors import InputError
from simsiam_zoo.testing.scaffold import write_package


@click.command()
@click.argument("name")
@click.option(
    "--kind",
    required=False,
    callback=singular,
    shell_complete=complete_kind,
    help="What it supplies: projector, loss, preset, ...",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The package's folder, new or empty.  [default: NAME]",
)
def new(name: str, kind: str | None, out: Path | None) -> None:
    """Write a package NAME that supplies one component.

    It builds, installs, passes `simsiam-zoo plugin check` and trains as it is: change the
    body, and run its tests. The component is named after NAME without `-zoo`.
    """
    if kind is None:
        raise InputError("say what the package supplies: --kind", f"One of {', '.join(KINDS)}.")
    files = write_package(name, kind, out)
    folder = Path(canonical_name(name)) if out is None else out
    for file in files:
        print_line(f"  {folder / file}")
    print_line()
    print_line(f"Install it:  pip install -e {folder if out else f'./{folder}'}")
    print_line(f"Check it:    simsiam-zoo plugin check {canonical_name(name)}")
