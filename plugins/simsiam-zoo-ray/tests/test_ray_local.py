"""A cluster that the launcher starts on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ray_jobs import SAVING, log_of, said

from simsiam_zoo.catalog import catalog
from simsiam_zoo.plugin import PluginError
from simsiam_zoo.studies.launcher import create_launcher

CALLER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from pathlib import Path
import ray
from simsiam_zoo.catalog import catalog
from simsiam_zoo.plugin import Resources
from simsiam_zoo.studies.launcher import create_launcher

def ended(job):
    while (code := launcher.poll(job)) is None:
        try:
            time.sleep(0.01)
        except KeyboardInterrupt:
            launcher.cancel(job)
    return code

launcher = create_launcher(catalog().resolve("launcher", "ray:address=local,cpus=2"))
print(ray.cluster_resources()["CPU"])
script = 'pwd; echo "$FLAVOUR, $OMP_NUM_THREADS" >&2; exit 7'
first = launcher.submit(["sh", "-c", script], Path("first"), Resources(cpus=2))
print(ended(first), launcher.poll(first))
second = launcher.submit([sys.executable, "-c", sys.argv[1]], Path("second"), Resources())
print(ended(second))
launcher.close()
print(ray.is_initialized())
"""


def test_listing_the_launcher_does_not_import_ray() -> None:
    code = "import sys, simsiam_zoo_ray; list(simsiam_zoo_ray.zoo_components()); "
    code += "sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_study_uses_a_cluster_of_its_own_and_ctrl_c_asks_each_run_once(tmp_path: Path) -> None:
    """The caller leads the group in the foreground, which the cluster's processes are in too."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    (tmp_path / "first" / "log.txt").write_text("from before\n")
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, SAVING],
        cwd=tmp_path,
        env=os.environ | {"FLAVOUR": "salt & $HOME", "OMP_NUM_THREADS": "64"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    said(tmp_path / "second", "ready")
    os.killpg(caller.pid, signal.SIGINT)
    printed, _ = caller.communicate(timeout=60)
    assert printed.split() == ["2.0", "7", "7", "75", "False"]
    assert log_of(tmp_path / "first") == f"from before\n{tmp_path}\nsalt & $HOME, 2\n"
    assert log_of(tmp_path / "second") == "ready\nSIGTERM\n"


def test_a_cluster_that_is_not_there_is_told() -> None:
    with pytest.raises(PluginError, match="there is no Ray cluster at nonsense") as caught:
        create_launcher(catalog().resolve("launcher", "ray:address=nonsense"))
    assert caught.value.exit_code == 3
