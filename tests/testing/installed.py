"""Packages that are there for a test: built as wheels, unpacked onto the path."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from simsiam_zoo.catalog.discovery import SELECTION


@contextmanager
def installed(package: Path, folder: Path) -> Iterator[str]:
    """The package's distribution, importable in here. Of a pure wheel, to unpack is to install."""
    (wheel,) = WheelBuilder(str(package)).build(directory=str(folder), versions=["standard"])
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (metadata,) = site.glob("*.dist-info/METADATA")
    lines = metadata.read_text().splitlines()
    name = next(line for line in lines if line.startswith("Name: ")).removeprefix("Name: ")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.setenv(SELECTION, name)
        yield name
        for module, body in list(sys.modules.items()):  # another package may have its name
            if str(site) in (getattr(body, "__file__", None) or ""):
                del sys.modules[module]
