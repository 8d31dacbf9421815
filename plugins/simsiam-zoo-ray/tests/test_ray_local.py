"""A cluster that the launcher starts on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ray_jobs import ended, log_of, sh

from simsiam_zoo.catalog import catalog
from simsiam_zoo.errors import PluginError
from simsiam_zoo.studies.launcher import Resources, create_launcher


def test_listing_the_launcher_does_not_import_ray() -> None:
    code = "import sys, simsiam_zoo_ray; list(simsiam_zoo_ray.zoo_components()); "
    code += "sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_study_uses_a_cluster_of_its_own_and_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLAVOUR", "salt & $HOME")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    (tmp_path / "log.txt").write_text("from before\n")
    launcher = create_launcher(catalog().resolve("launcher", "ray:address=local,cpus=2"))
    assert ray.cluster_resources()["CPU"] == 2
    script = 'pwd; echo "$FLAVOUR, $OMP_NUM_THREADS" >&2; exit 7'
    job = launcher.submit(sh(script), Path("."), Resources(cpus=2))
    assert ended(launcher, job) == 7
    assert launcher.poll(job) == 7
    assert log_of(tmp_path) == f"from before\n{tmp_path}\nsalt & $HOME, 2\n"
    launcher.close()  # type: ignore[attr-defined]
    assert not ray.is_initialized()


def test_a_cluster_that_is_not_there_is_told() -> None:
    with pytest.raises(PluginError, match="there is no Ray cluster at nonsense") as caught:
        create_launcher(catalog().resolve("launcher", "ray:address=nonsense"))
    assert caught.value.exit_code == 3
