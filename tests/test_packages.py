"""What is built for others to install: the core, and each package under plugins/."""

from __future__ import annotations

import inspect
import tomllib
import zipfile
from inspect import Parameter
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

from simsiam_zoo.catalog import catalog
from simsiam_zoo.catalog.component import HOST_SUPPLIED, load_target
from simsiam_zoo.catalog.discovery import API

ROOT = Path(__file__).parents[1]
NEED_MORE = ("format", "logger", "launcher")
"""Kinds whose bodies need packages that an installation may lack, or another host's arguments."""
PACKAGES = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))


def built(package: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
    """The files of a package's wheel, and the text of its metadata by name."""
    (wheel,) = WheelBuilder(str(package)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = [name for name in names if ".dist-info/" in name]
        texts = {Path(name).name: archive.read(name).decode() for name in metadata}
    return [name for name in names if name not in metadata], texts


def test_the_cores_wheel_holds_the_core_alone(tmp_path: Path) -> None:
    files, _ = built(ROOT, tmp_path)
    assert {Path(name).parts[0] for name in files} == {"simsiam_zoo"}
    assert "simsiam_zoo/studies/die_with_parent.py" in files


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
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
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
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert core.specifier.contains(version)
    assert not core.specifier.contains("0.2")  # which may have another simsiam_zoo.plugin
    assert all(need.specifier for need in needs)
    assert (package / "README.md").read_text().startswith(f"# {package.name}\n")
    assert list(package.glob("tests/test_*.py"))
