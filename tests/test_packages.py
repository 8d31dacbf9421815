"""What is built for others to install: the core, and each package under plugins/."""

from __future__ import annotations

import inspect
import re
import tarfile
import tomllib
import zipfile
from inspect import Parameter
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

from simsiam_zoo.catalog import catalog
from simsiam_zoo.catalog.component import HOST_SUPPLIED, load_target
from simsiam_zoo.catalog.discovery import API

ROOT = Path(__file__).parents[1]
NEED_MORE = ("format", "logger", "launcher")
"""Kinds whose bodies need packages that an installation may lack, or another host's arguments."""
PACKAGES = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))


def project_of(package: Path) -> dict[str, Any]:
    """What the package's pyproject.toml says of it."""
    return tomllib.loads((package / "pyproject.toml").read_text())["project"]


VERSION = project_of(ROOT)["version"]


def built(package: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
    """The files of a package's wheel, and the text of its metadata by name.

    It is built twice: both times the same bytes, so that anyone can check what was published.
    """
    where = [folder / "one", folder / "two"]
    wheels = [
        next(WheelBuilder(str(package)).build(directory=str(place), versions=["standard"]))
        for place in where
    ]
    assert Path(wheels[0]).read_bytes() == Path(wheels[1]).read_bytes()
    wheel = wheels[0]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = [name for name in names if ".dist-info/" in name]
        texts = {Path(name).name: archive.read(name).decode() for name in metadata}
    return [name for name in names if name not in metadata], texts


def test_the_cores_wheel_holds_the_core_alone(tmp_path: Path) -> None:
    files, texts = built(ROOT, tmp_path)
    assert {Path(name).parts[0] for name in files} == {"simsiam_zoo"}
    assert "simsiam_zoo/studies/die_with_parent.py" in files
    here = ROOT / "simsiam_zoo"
    data = [path for path in here.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {path.relative_to(ROOT).as_posix() for path in data} == set(files)
    assert texts["LICENSE"] == (ROOT / "LICENSE").read_text()
    assert "License-Expression: Apache-2.0\n" in texts["METADATA"]


def test_the_sources_that_are_published_are_the_packages_own(tmp_path: Path) -> None:
    one, two = (
        next(SdistBuilder(str(ROOT)).build(directory=str(tmp_path / name))) for name in "ab"
    )
    assert Path(one).read_bytes() == Path(two).read_bytes()
    with tarfile.open(one) as archive:
        top = {Path(name).parts[1] for name in archive.getnames()}
    stated = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "SECURITY.md"}
    assert top == {*stated, "simsiam_zoo", "pyproject.toml", "PKG-INFO", ".gitignore"}


def test_the_version_is_the_same_wherever_it_stands() -> None:
    """pyproject.toml states it; the packages are released together."""
    stated = {path.name: project_of(path)["version"] for path in (ROOT, *PACKAGES)}
    assert set(stated.values()) == {VERSION}
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == VERSION
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == VERSION


def test_factories_take_what_their_descriptors_declare_and_state_no_default() -> None:
    """The host gives every param by keyword: its default stands in the descriptor alone."""
    checked = 0
    for entry in catalog().entries():
        own = entry.distribution.startswith("simsiam-zoo")
        if not own or entry.kind in ("preset", "study") or entry.kind in NEED_MORE:
            continue
        taken = inspect.signature(load_target(entry.component.target, entry.name)).parameters
        declared = {param.name for param in entry.component.params}
        host = HOST_SUPPLIED.get(entry.kind, frozenset()) | {"name"}
        named = {n: p for n, p in taken.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if len(named) == len(taken):  # not nn.Module's own signature, which takes anything
            assert declared <= named.keys() <= declared | host, entry.full
        assert not [n for n in declared & named.keys() if named[n].default is not Parameter.empty]
        checked += len(declared)
    assert checked >= 60


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_package_builds_with_all_that_its_entry_point_needs(
    package: Path, tmp_path: Path
) -> None:
    project = project_of(package)
    assert project["name"] == package.name
    files, texts = built(package, tmp_path)
    (target,) = project["entry-points"][f"simsiam_zoo.{API}"].values()
    module = target.partition(".")[0]
    assert {Path(name).parts[0] for name in files} == {module}  # and no tests
    sources = {f"{module}/{path.name}" for path in (package / module).glob("*.py")}
    assert sources <= set(files)
    assert f"[simsiam_zoo.{API}]" in texts["entry_points.txt"]
    needs = [Requirement(text) for text in project["dependencies"]]
    (core,) = [need for need in needs if need.name == "simsiam-zoo"]
    major = int(VERSION.partition(".")[0])
    assert core.specifier.contains(VERSION)
    assert core.specifier.contains(f"{major}.999")
    assert not core.specifier.contains(f"{major + 1}.0")  # may have another simsiam_zoo.plugin
    assert all(need.specifier for need in needs)
    assert f"{module}/py.typed" in files
    assert texts["LICENSE"] == (ROOT / "LICENSE").read_text()
    assert (package / "README.md").read_text().startswith(f"# {package.name}\n")
    assert list(package.glob("tests/test_*.py"))
