"""The source of what computes is in a run's identity, and that of what only shows is not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import simsiam_zoo
from simsiam_zoo.catalog import HOST, Catalog, Component, Plugin, Resolved
from simsiam_zoo.recipe import Recipe, source
from simsiam_zoo.recipe.lock import identity, make_lock
from simsiam_zoo.recipe.source import code_of, host_digest, is_editable

PACKAGE = Path(simsiam_zoo.__file__).parent


@pytest.fixture(autouse=True)
def forget() -> Any:
    """A process looks at source once; each test is as a process of its own."""

    def anew() -> None:
        source._source.cache_clear()

    anew()
    yield anew
    anew()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of this package that may be edited."""
    copy = tmp_path / "simsiam_zoo"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def edited(package: Path, module: str) -> bool:
    """Whether an edit of the module changes the digest of this package."""
    before = host_digest(package)
    file = package / module
    text = file.read_text()
    file.write_text(text + "# edited\n")
    changed = host_digest(package) != before
    file.write_text(text)
    assert host_digest(package) == before  # saved without a change
    return changed


def test_an_edit_of_what_computes_changes_the_identity_and_of_what_shows_does_not(package):
    for module in (
        "model/siamese.py",
        "data/image.py",
        "data/order.py",
        "training/loop.py",
        "runtime/optim.py",
        "components/augmentations.py",
        "evaluation/knn.py",
    ):
        assert edited(package, module), module
    for module in (
        "components/loggers.py",
        "components/plugin.py",
        "cli/train.py",
        "__init__.py",
        "studies/results.py",
        "recipe/source.py",
        "training/run_folder.py",
    ):
        assert not edited(package, module), module


def test_a_new_module_counts_until_it_is_known_to_compute_nothing(package):
    before = host_digest(package)
    (package / "cli" / "more.py").write_text("x = 1\n")
    assert host_digest(package) == before
    (package / "training" / "more.py").write_text("x = 1\n")
    assert host_digest(package) != before


def test_the_host_of_a_run_is_known_by_its_source_where_it_is_edited_and_else_by_its_version(
    monkeypatch, forget
):
    assert is_editable(HOST)  # these tests run in a checkout
    recipe = Recipe.make("digits")
    lock = make_lock(recipe, "0123", {})
    assert lock["code"] == {HOST: f"source {host_digest(PACKAGE)}"}
    other = lock | {"code": {HOST: "source 0123456789abcdef"}}
    assert identity(other) != identity(lock)
    forget()
    monkeypatch.setattr(source, "is_editable", lambda distribution: False)
    version = source.installed_version(HOST)
    assert make_lock(recipe, "0123", {})["code"] == {HOST: f"version {version}"}


def test_looking_at_the_source_is_quick_and_leaves_torch_out():
    code = (
        "import sys, time\n"
        "from simsiam_zoo.recipe import Recipe\n"
        "from simsiam_zoo.recipe.source import code_of\n"
        "part = Recipe.make('digits').part('loss')\n"
        "times = []\n"
        "for _ in range(3):\n"
        "    began = time.process_time()\n"
        "    code_of([part])\n"
        "    times.append(time.process_time() - began)\n"
        "print(times[0], times[2], 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, again, torch = done.stdout.split()
    assert float(first) < 0.2  # 0.012 s on an idle core
    assert float(again) < 0.005  # it is looked at once
    assert torch == "False"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source of two plugins: `soft-zoo` is installed to be edited, `hard-zoo` from a wheel."""
    site, home = tmp_path / "site", tmp_path / "src"
    for name, editable in (("soft_zoo", True), ("hard_zoo", False)):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{name}.pth,,\n")
        (info / "direct_url.json").write_text(json.dumps({"dir_info": {"editable": editable}}))
        (info / "entry_points.txt").write_text("[simsiam_zoo.v1]\nzoo = zoo_light_part\n")
    for file, text in {
        "zoo_light_part.py": "x = 1\n",
        "mylab_part/__init__.py": "",
        "mylab_part/common.py": "x = 1\n",
        "mylab_part/parts/__init__.py": "",
        "mylab_part/parts/heads.py": "from mylab_part.common import x\nimport os, zoo_beside\n",
        "mylab_part/kernel.cu": "// 1\n",
        "mylab_part/notes.txt": "1\n",
        "zoo_beside.py": "x = 1\n",
        "zoo_unrelated.py": "x = 1\n",
    }.items():
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_text(text)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.syspath_prepend(str(home))
    return home


def head_of(distribution: str) -> Resolved:
    head = Component("projector", "head", "mylab_part.parts.heads:Head", "A head")
    plugin = Plugin("zoo", "zoo_light_part", distribution, "1.0", "v1", components=(head,))
    return Catalog([plugin]).resolve("projector", "head")


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("mylab_part/parts/heads.py", True),
        ("mylab_part/common.py", True),  # above the target's own folder
        ("mylab_part/kernel.cu", True),
        ("zoo_light_part.py", True),  # what the entry point names
        ("zoo_beside.py", True),  # imported from beside
        ("zoo_unrelated.py", False),
        ("mylab_part/notes.txt", False),
    ],
)
def test_all_packages_of_an_editable_plugin_are_in_the_identity(project, forget, file, counts):
    part = head_of("soft-zoo")
    before = code_of([part])
    assert before["soft-zoo"].startswith("source ")
    forget()
    assert code_of([part]) == before
    (project / file).write_text("x = 2\n" if file != "mylab_part/parts/heads.py" else "y = 1\n")
    forget()
    assert (code_of([part]) != before) == counts
    lock = make_lock(Recipe.make("digits"), "0123", {})
    assert (identity(lock | {"code": code_of([part])}) != identity(lock | {"code": before})) == (
        counts
    )


def test_an_edit_while_a_process_runs_does_not_pass_for_what_it_runs(project):
    part = head_of("soft-zoo")
    before = code_of([part])
    (project / "mylab_part" / "common.py").write_text("x = 2\n")
    assert code_of([part]) == before


def test_a_plugin_from_a_wheel_is_known_by_its_version_alone(project):
    assert code_of([head_of("hard-zoo")])["hard-zoo"] == "version 1.0"
    assert code_of([head_of("no-such-zoo")])["no-such-zoo"] == "version 1.0"


def test_what_lies_beside_an_installed_package_is_not_hashed(project, tmp_path):
    """Metadata that cannot be read vouches for no version, and site-packages are no project."""
    info = tmp_path / "site" / "hard_zoo-1.0.dist-info"
    (info / "direct_url.json").write_text("{torn")
    shutil.copytree(project, tmp_path / "site", dirs_exist_ok=True)
    shutil.rmtree(project)
    began = source.plugin_digest("hard-zoo", ["mylab_part"])
    (tmp_path / "site" / "zoo_beside.py").write_text("x = 2\n")
    assert source.plugin_digest("hard-zoo", ["mylab_part"]) == began
    (tmp_path / "site" / "mylab_part" / "common.py").write_text("x = 2\n")
    assert source.plugin_digest("hard-zoo", ["mylab_part"]) != began
