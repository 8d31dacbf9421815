"""The floors of `pyproject.toml`: told where they are not met, and as high as the code needs."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from simsiam_zoo.runtime.machine import unmet_requirements

ROOT = Path(__file__).parents[2]
FLOORS = {
    requirement.name: requirement
    for requirement in map(
        Requirement,
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"],
    )
}
CV = "opencv-python-headless"
NEEDED = [  # package, the version that brought a name, what the code does that needs it
    (CV, "4.11", "cv2", "IMREAD_COLOR_RGB", "cv2.IMREAD_COLOR_RGB"),
    # Until then timm read the rates of stochastic depth from a tensor, and a model that is only
    # sized has none: swin_tiny_patch4_window7_224 could not be built.
    ("timm", "1.0.21", "timm.layers.drop", "calculate_drop_path_rates", 'torch.device("meta")'),
]


@pytest.mark.parametrize(("package", "since", "module", "name", "done"), NEEDED)
def test_a_floor_is_where_the_name_that_needs_it_came(package, since, module, name, done):
    floor = min(Version(each.version) for each in FLOORS[package].specifier)
    assert floor >= Version(since), f"{module}.{name} is missing in {package} {floor}"
    assert hasattr(importlib.import_module(module), name)
    code = (path.read_text() for path in (ROOT / "simsiam_zoo").rglob("*.py"))
    assert any(done in text for text in code), "nothing needs it: the floor may fall"


def test_every_floor_is_met_here():
    assert unmet_requirements() == []


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH, whose metadata say that an old OpenCV is installed."""
    metadata = tmp_path / "opencv_python_headless-4.5.1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: opencv-python-headless\nVersion: 4.5.1\n")
    return tmp_path


def test_a_package_that_is_too_old_is_named(old: Path, monkeypatch):
    monkeypatch.syspath_prepend(str(old))
    (line,) = unmet_requirements()
    assert line == f"{CV} 4.5.1 is here, and {FLOORS[CV]} is needed"


def test_a_package_that_is_not_there_is_named(tmp_path: Path, monkeypatch):
    metadata = tmp_path / "needy-1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(
        "Metadata-Version: 2.1\nName: needy\nVersion: 1\nRequires-Dist: nowhere-zoo>=3\n"
        "Requires-Dist: other-zoo; extra == 'more'\nRequires-Dist: old-zoo; python_version < '3'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = unmet_requirements("needy")
    assert lines == ["nowhere-zoo is not installed, and nowhere-zoo>=3 is needed"]


def test_a_command_that_trips_over_an_old_package_names_it_and_shows_no_traceback(old: Path):
    (old / "cv2.py").write_text("raise ImportError('built for another Python')\n")
    run = subprocess.run(
        [sys.executable, "-m", "simsiam_zoo", "train", "--preset", "digits", "--out", old / "run"],
        env={"PYTHONPATH": str(old), "PATH": "", "SIMSIAM_ZOO_CACHE": str(old / "cache")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 3
    assert f"{CV} 4.5.1 is here" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (old / "run").exists()
