"""Plugins that are not what they say, from real wheels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from simsiam_zoo.catalog import PARTS, catalog
from simsiam_zoo.catalog.discovery import discover
from simsiam_zoo.errors import PluginError

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def wheel(install_plugins, monkeypatch):
    """`wheel("swish-zoo")` → its folder, on this process's path and selected."""

    def use(name: str) -> Path:
        folder = install_plugins(name)["PYTHONPATH"].split(os.pathsep)[0]
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("SIMSIAM_ZOO_PLUGINS", name)
        return Path(folder)

    return use


def build_with(**specs: str) -> None:
    from simsiam_zoo.model.build import build

    chosen = {
        "backbone": "test_resnet",
        "projector": "mlp:layers=1,out_dim=8",
        "predictor": "mlp:hidden_dim=4",
        "gradient": "stop-gradient",
        "loss": "cosine",
    } | specs
    build({kind: catalog().resolve(kind, chosen[kind]) for kind in PARTS}, image_size=16)


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("projector", "misnamed", "does not take what its descriptor says"),
        ("projector", "demanding", "missing a required argument: 'temperature'"),
        ("projector", "notanumber", "values that are not finite"),
        ("projector", "narrow", "gave [2, 7] for"),
        ("projector", "widthless", "has out_dim None"),
        ("projector", "failing", "RuntimeError: no such kernel (liar_impl.py:43)"),
        ("projector", "misspelt", "name 'functonal' is not defined (liar_impl.py:52)"),
        ("predictor", "changes-width", "gave [2, 9] for [2, 8], not [2, 8]"),
        ("loss", "per-sample", "gave [2] for"),
    ],
)
def test_a_part_that_is_not_what_it_says_is_stopped_at_build_by_its_name(wheel, kind, name, said):
    wheel("liar-zoo")
    with pytest.raises(PluginError) as caught:
        build_with(**{kind: name})
    assert f"{kind} liar-zoo/{name}" in str(caught.value)
    assert said in str(caught.value)


def test_stray_metadata_of_an_older_editable_install_change_nothing(wheel, tmp_path, monkeypatch):
    """An egg-info that `pip install -e` once left in a source tree, which is on the path still."""
    stray = tmp_path / "swish_zoo.egg-info"
    stray.mkdir()
    (stray / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: Swish_Zoo\nVersion: 0.1.0\n")
    (stray / "entry_points.txt").write_text("[simsiam_zoo.v1]\nold = swish_zoo_of_old\n")
    monkeypatch.syspath_prepend(tmp_path)  # behind the wheel, which comes next
    wheel("swish-zoo")
    (plugin,) = [p for p in discover() if p.distribution == "swish-zoo"]
    assert (plugin.version, plugin.status) == ("0.3.0", "ok")


def test_stray_metadata_before_the_wheel_are_told_as_broken(wheel, tmp_path, monkeypatch):
    wheel("swish-zoo")
    stray = tmp_path / "swish_zoo.egg-info"
    stray.mkdir()
    (stray / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: swish-zoo\nVersion: 0.1.0\n")
    (stray / "entry_points.txt").write_text("[simsiam_zoo.v1]\nold = swish_zoo_of_old\n")
    monkeypatch.syspath_prepend(tmp_path)
    (plugin,) = [p for p in discover() if p.distribution == "swish-zoo"]
    assert (plugin.version, plugin.status) == ("0.1.0", "broken")
    assert "No module named 'swish_zoo_of_old'" in str(plugin.cause)


def test_a_real_editable_install_is_one_plugin_and_its_source_is_in_the_lock(tmp_path):
    """`pip install -e`, beside metadata that an older one left in the source."""
    source, home = tmp_path / "swish-zoo", tmp_path / "venv"
    shutil.copytree(FIXTURES / "swish-zoo", source)
    stray = source / "swish_zoo.egg-info"
    stray.mkdir()
    (stray / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: swish-zoo\nVersion: 0.1.0\n")
    (stray / "entry_points.txt").write_text("[simsiam_zoo.v1]\nold = swish_zoo_of_old\n")
    venv.create(home, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    above = sysconfig.get_path("purelib")
    (site / "above.pth").write_text(f"import site; site.addsitedir({above!r})\n")
    python = str(home / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index"]
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, "--editable", str(source)], check=True)

    def asked() -> tuple[str, str, str]:
        """State and version of the plugin, and what a lock holds of its source."""
        script = """
from simsiam_zoo.catalog import catalog
from simsiam_zoo.recipe.source import code_of
(plugin,) = [p for p in catalog().plugins if p.distribution == "swish-zoo"]
code = code_of([catalog().resolve("projector", "swish")])
print(plugin.status, plugin.version, code["swish-zoo"].removeprefix("source "))
"""
        env = {**os.environ, "SIMSIAM_ZOO_PLUGINS": "swish-zoo"}
        done = subprocess.run([python, "-c", script], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        status, version, digest = done.stdout.split()
        return status, version, digest

    status, version, before = asked()
    assert (status, version) == ("ok", "0.3.0")
    body = source / "swish_impl.py"
    body.write_text(body.read_text() + "\n# changed\n")
    assert asked()[2] != before


def test_a_slow_import_is_reported_in_milliseconds(wheel):
    wheel("slow-zoo")
    (plugin,) = [p for p in discover({"slow-zoo"}) if p.distribution == "slow-zoo"]
    assert 0.2 <= plugin.seconds < 5
