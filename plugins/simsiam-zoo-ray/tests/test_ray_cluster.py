"""A cluster of two nodes over loopback: a head that has no cores, and a worker that has two."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from ray_jobs import SAVING, STORE, ended, log_of, python, said, sh

from simsiam_zoo.plugin import LaunchError, Resources, create_component
from simsiam_zoo_ray.launcher import RayLauncher

HOLDING = 'echo begun; trap "exit 75" TERM; while true; do sleep 0.02; done'

CALLER = """
import sys, time
from pathlib import Path
from simsiam_zoo.plugin import Resources, create_component
launcher = create_component("launcher", "ray", address=sys.argv[1])
job = launcher.submit(["sh", "-c", "echo $$; sleep 60"], Path(sys.argv[2]), Resources())
time.sleep(60)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=2, num_gpus=1, object_store_memory=STORE)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def launcher(cluster: Cluster) -> Iterator[RayLauncher]:
    made = create_component("launcher", "ray", address=cluster.address)
    yield made
    made.close()


def folder_of(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def test_a_job_ends_with_the_exit_code_of_its_command_and_the_log_says_what_could_not_start(
    launcher: RayLauncher, tmp_path: Path
) -> None:
    killed = launcher.submit(sh("echo out; kill -9 $$"), tmp_path, Resources())
    missing = launcher.submit(["no-such-program"], folder_of(tmp_path, "missing"), Resources())
    nowhere = tmp_path / "nowhere"  # as where the file system is not shared
    unshared = launcher.submit(sh(""), nowhere, Resources())
    assert ended(launcher, killed) == -9
    assert log_of(tmp_path) == "out\n"
    assert ended(launcher, missing) == 127
    assert "no-such-program cannot be started: No such file" in log_of(tmp_path / "missing")
    assert ended(launcher, unshared) == 126


def test_cancel_asks_once(launcher: RayLauncher, tmp_path: Path) -> None:
    job = launcher.submit(python(SAVING), tmp_path, Resources())
    said(tmp_path, "ready")
    launcher.cancel(job)
    launcher.cancel(job)
    assert ended(launcher, job) == 75
    assert log_of(tmp_path) == "ready\nSIGTERM\n"
    launcher.cancel(job)


def test_a_command_that_does_not_stop_is_killed_with_its_children(
    cluster: Cluster, tmp_path: Path
) -> None:
    launcher = create_component("launcher", "ray", address=cluster.address, grace=0.2)
    stubborn = 'trap "" TERM; sleep 61 & echo $!; while true; do sleep 0.1; done'
    job = launcher.submit(sh(stubborn), tmp_path, Resources())
    child = int(said(tmp_path, "\n"))
    launcher.cancel(job)
    assert ended(launcher, job) == -9
    assert gone(child)
    launcher.close()


def test_two_jobs_of_one_core_run_on_two_cores_and_the_third_waits(
    launcher: RayLauncher, tmp_path: Path
) -> None:
    names = ("a", "b", "c", "d")
    folders = {name: folder_of(tmp_path, name) for name in names}
    jobs = {name: launcher.submit(sh(HOLDING), folders[name], Resources()) for name in ("a", "b")}
    for name in ("a", "b"):
        said(folders[name], "begun")
    for name in ("c", "d"):
        jobs[name] = launcher.submit(sh(HOLDING), folders[name], Resources())
    time.sleep(0.5)
    assert [launcher.poll(job) for job in jobs.values()] == [None] * 4
    assert log_of(folders["c"]) == log_of(folders["d"]) == ""
    launcher.cancel(jobs["c"])  # from the queue
    assert launcher.poll(jobs["c"]) == -signal.SIGTERM
    launcher.cancel(jobs["a"])
    assert ended(launcher, jobs["a"]) == 75
    said(folders["d"], "begun")
    for name in ("b", "d"):
        launcher.cancel(jobs[name])
        assert ended(launcher, jobs[name]) == 75
    assert log_of(folders["c"]) == ""


def test_a_job_sees_the_gpus_that_it_was_given_and_no_others(
    launcher: RayLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")  # of the caller's machine
    seen = {"half": "<0>\n", "none": "<>\n"}
    jobs = {}
    for name, gpus in (("half", 0.5), ("none", 0)):
        script = sh('echo "<$CUDA_VISIBLE_DEVICES>"')
        jobs[name] = launcher.submit(script, folder_of(tmp_path, name), Resources(gpus=gpus))
    for name, job in jobs.items():
        assert ended(launcher, job) == 0
        assert log_of(tmp_path / name) == seen[name]


def test_what_no_node_has_is_refused_unless_the_cluster_grows(
    launcher: RayLauncher, cluster: Cluster, tmp_path: Path
) -> None:
    with pytest.raises(LaunchError, match=r"3 cores and 0 GPUs, and no node .* 2 and 1"):
        launcher.submit(sh(""), tmp_path, Resources(cpus=3))
    growing = create_component("launcher", "ray", address=cluster.address, autoscaling=True)
    job = growing.submit(sh(""), tmp_path, Resources(cpus=3))
    assert growing.poll(job) is None
    growing.cancel(job)
    assert growing.poll(job) == -signal.SIGTERM
    growing.close()


def test_a_job_of_another_launcher_is_unknown(launcher: RayLauncher) -> None:
    for method in (launcher.poll, launcher.cancel):
        with pytest.raises(LaunchError, match="launcher ray has started no job 'ray-0'"):
            method("ray-0")


def test_no_command_outlives_a_caller_that_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    caller = subprocess.Popen([sys.executable, "-c", CALLER, cluster.address, str(tmp_path)])
    try:
        command = int(said(tmp_path, "\n"))
        assert not gone(command, within=0)
    finally:
        caller.kill()
        caller.wait()
    assert gone(command)


def test_a_job_whose_node_dies_ends_as_killed(
    launcher: RayLauncher, cluster: Cluster, tmp_path: Path
) -> None:
    """The last test here: the cluster has no cores after it."""
    job = launcher.submit(sh("echo $$; sleep 60"), tmp_path, Resources())
    command = int(said(tmp_path, "\n"))
    (worker,) = cluster.worker_nodes
    cluster.remove_node(worker, allow_graceful=False)
    assert ended(launcher, job) == -9
    assert "Ray lost the process or its node" in log_of(tmp_path)
    assert gone(command)


def gone(process: int, within: float = 20.0) -> bool:
    """Whether the process ends in time; one that nobody has reaped is gone."""
    end = time.monotonic() + within
    while True:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z" or time.monotonic() > end:
            return state == "Z"
        time.sleep(0.02)
