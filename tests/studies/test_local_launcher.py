"""The launcher `local`: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simsiam_zoo.catalog import Catalog, Component, Plugin, catalog
from simsiam_zoo.errors import PluginError
from simsiam_zoo.studies import die_with_parent
from simsiam_zoo.studies import launcher as launcher_module
from simsiam_zoo.studies.launcher import (
    LaunchError,
    LocalLauncher,
    Resources,
    create_launcher,
    default_jobs,
)

# Says which signals come, and stops half a second after the first one, as a run that saves.
SAVING = """
import signal, sys, time
got = []
for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(one, lambda number, frame: got.append(signal.Signals(number).name))
print("ready", flush=True)
end = time.monotonic() + 30
while time.monotonic() < end and not got:
    time.sleep(0.01)
time.sleep(0.5)
print(*got, flush=True)
sys.exit(75)
"""

# The caller of a launcher: starts SAVING, and on Ctrl-C cancels (twice) and waits.
CALLER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from pathlib import Path
from simsiam_zoo.studies.launcher import LocalLauncher, Resources
launcher = LocalLauncher()
job = launcher.submit([sys.executable, "-c", sys.argv[1]], Path(sys.argv[2]), Resources())
while (code := launcher.poll(job)) is None:
    try:
        time.sleep(0.01)
    except KeyboardInterrupt:
        launcher.cancel(job)
        launcher.cancel(job)
sys.exit(code)
"""


def ended(launcher: Any, job: str, within: float = 30.0) -> int:
    end = time.monotonic() + within
    while time.monotonic() < end:
        code: int | None = launcher.poll(job)
        if code is not None:
            return code
        time.sleep(0.01)
    raise AssertionError(f"{job} has not ended in {within:g} s")


def said(folder: Path, text: str, within: float = 30.0) -> str:
    """The log, once it holds `text`."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        log = (folder / "log.txt").read_text() if (folder / "log.txt").exists() else ""
        if text in log:
            return log
        time.sleep(0.01)
    raise AssertionError(f"{text!r} is not in the log: {log!r}")


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


@pytest.fixture
def caller(tmp_path: Path) -> Any:
    """A process like `simsiam-zoo ablate` in a terminal: the leader of the foreground group."""
    command = [sys.executable, "-c", CALLER, SAVING, str(tmp_path)]
    process = subprocess.Popen(command, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_the_built_in_launcher_is_a_component() -> None:
    assert isinstance(create_launcher(catalog().resolve("launcher", "local")), LocalLauncher)


class Mute:
    def submit(self) -> None: ...


def test_what_cannot_launch_is_refused_by_name() -> None:
    component = Component("launcher", "mute", target=f"{__name__}:Mute", summary="for a test")
    plugin = Plugin("test", __name__, "test-zoo", "1.0", "v1", components=(component,))
    with pytest.raises(
        PluginError, match=r"test-zoo/mute cannot be used: .* must have submit, poll and cancel"
    ):
        create_launcher(Catalog([plugin]).resolve("launcher", "mute"))


def test_a_job_ends_with_the_exit_code_of_its_command(tmp_path: Path) -> None:
    launcher = LocalLauncher()
    scripts = {"exit 7": 7, "exit 0": 0, "kill -9 $$": -9}
    jobs = {script: launcher.submit(sh(script), tmp_path, Resources()) for script in scripts}
    assert len(set(jobs.values())) == 3
    assert {script: ended(launcher, job) for script, job in jobs.items()} == scripts
    assert launcher.poll(jobs["exit 7"]) == 7  # and it is told again
    launcher.cancel(jobs["exit 7"])
    assert launcher.poll(jobs["exit 7"]) == 7


def test_what_a_command_prints_is_appended_to_the_log(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("from before\n")
    launcher = LocalLauncher()
    job = launcher.submit(
        sh("echo out; echo err >&2; read x || echo no input"), tmp_path, Resources()
    )
    assert ended(launcher, job) == 0
    assert (tmp_path / "log.txt").read_text() == "from before\nout\nerr\nno input\n"


def test_a_command_has_the_callers_folder_and_environment_and_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLAVOUR", "salt & $HOME")
    monkeypatch.setenv("MKL_NUM_THREADS", "64")  # MKL would take this rather than OMP_NUM_THREADS
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    launcher = LocalLauncher()
    names = "$FLAVOUR,$OMP_NUM_THREADS,$MKL_NUM_THREADS,$CUDA_VISIBLE_DEVICES"
    job = launcher.submit(sh(f'pwd; echo "{names}"'), tmp_path, Resources(cpus=3))
    ended(launcher, job)
    assert (tmp_path / "log.txt").read_text() == f"{tmp_path}\nsalt & $HOME,3,3,5\n"


def test_a_pipeline_of_the_shell_ends_by_its_signal(tmp_path: Path) -> None:
    """Python ignores SIGPIPE: a command that inherited that would see errors instead."""
    launcher = LocalLauncher()
    job = launcher.submit(sh("yes | head -1"), tmp_path, Resources())
    assert ended(launcher, job) == 0
    assert (tmp_path / "log.txt").read_text() == "y\n"


def test_cancel_asks_once(tmp_path: Path) -> None:
    launcher = LocalLauncher()
    job = launcher.submit([sys.executable, "-c", SAVING], tmp_path, Resources())
    said(tmp_path, "ready")
    launcher.cancel(job)
    launcher.cancel(job)
    assert ended(launcher, job) == 75
    assert said(tmp_path, "TERM") == "ready\nSIGTERM\n"


def test_ctrl_c_reaches_a_command_through_the_caller_alone(caller: Any, tmp_path: Path) -> None:
    said(tmp_path, "ready")
    os.killpg(caller.pid, signal.SIGINT)  # as the terminal does
    assert caller.wait(30) == 75
    assert said(tmp_path, "TERM") == "ready\nSIGTERM\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_command_is_asked_to_stop_when_its_caller_is_killed(caller: Any, tmp_path: Path) -> None:
    said(tmp_path, "ready")
    caller.kill()
    assert said(tmp_path, "TERM") == "ready\nSIGTERM\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_command_whose_caller_died_before_it_began_does_not_begin() -> None:
    command = [sys.executable, die_with_parent.__file__, str(os.getppid()), "echo", "begun"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, "")


def test_what_cannot_be_started_is_told(tmp_path: Path) -> None:
    launcher = LocalLauncher()
    with pytest.raises(LaunchError, match=r"no-such-program cannot be started: there is no such"):
        launcher.submit(["no-such-program"], tmp_path, Resources())
    with pytest.raises(LaunchError, match=r"there is no folder .*nowhere"):
        launcher.submit(sh(""), tmp_path / "nowhere", Resources())
    not_a_program = tmp_path / "text"
    not_a_program.write_text("\0")
    not_a_program.chmod(0o755)
    job = launcher.submit([str(not_a_program)], tmp_path, Resources())
    assert ended(launcher, job) == 126
    assert "text cannot be started: Exec format error" in (tmp_path / "log.txt").read_text()


def test_a_job_of_another_launcher_is_unknown(tmp_path: Path) -> None:
    job = LocalLauncher().submit(sh(""), tmp_path, Resources())
    for method in (LocalLauncher().poll, LocalLauncher().cancel):
        with pytest.raises(LaunchError, match=f"launcher local has started no job '{job}'"):
            method(job)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_module, "visible_gpus", lambda: ["GPU-a", "GPU-b"])


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_handed_out_whole_and_a_job_waits_for_its_turn(tmp_path: Path) -> None:
    launcher = LocalLauncher()
    holding = 'echo "$CUDA_VISIBLE_DEVICES"; trap "exit 75" TERM; while true; do sleep 0.02; done'

    def submit(name: str, gpus: float) -> str:
        (tmp_path / name).mkdir()
        return launcher.submit(sh(holding), tmp_path / name, Resources(gpus=gpus))

    first, second = submit("first", 1), submit("second", 1)
    assert said(tmp_path / "first", "\n") == "GPU-a\n"
    assert said(tmp_path / "second", "\n") == "GPU-b\n"
    both, one, none = submit("both", 2), submit("one", 1), submit("none", 0)
    said(tmp_path / "none", "\n")  # it needs none, and so does not wait
    launcher.cancel(first)
    assert ended(launcher, first) == 75
    # one GPU is free, but the job that wants two came first: it would wait for ever otherwise
    assert launcher.poll(one) is None
    assert not (tmp_path / "one" / "log.txt").exists()
    launcher.cancel(second)
    assert ended(launcher, second) == 75
    assert said(tmp_path / "both", "\n") in ("GPU-a,GPU-b\n", "GPU-b,GPU-a\n")
    assert not (tmp_path / "one" / "log.txt").exists()
    launcher.cancel(one)  # from the queue
    assert launcher.poll(one) == -signal.SIGTERM
    launcher.cancel(both)
    launcher.cancel(none)
    assert [ended(launcher, both), ended(launcher, none)] == [75, 75]
    assert not (tmp_path / "one" / "log.txt").exists()


@pytest.mark.usefixtures("two_gpus")
def test_small_jobs_share_gpus_and_a_job_waits_for_a_share_or_for_all_of_one(
    tmp_path: Path,
) -> None:
    launcher = LocalLauncher()
    holding = 'echo "$CUDA_VISIBLE_DEVICES"; trap "exit 75" TERM; while true; do sleep 0.02; done'

    def submit(name: str, gpus: float) -> str:
        (tmp_path / name).mkdir()
        return launcher.submit(sh(holding), tmp_path / name, Resources(gpus=gpus))

    def begun(name: str) -> bool:
        return (tmp_path / name / "log.txt").exists()

    def end(job: str) -> None:
        launcher.cancel(job)
        assert ended(launcher, job) == 75

    third = 1 / 3  # three of them are not quite 1
    jobs = [submit(f"job-{number}", third) for number in range(6)]
    seen = [said(tmp_path / f"job-{number}", "\n").strip() for number in range(6)]
    assert sorted(seen) == ["GPU-a"] * 3 + ["GPU-b"] * 3
    assert seen[0] != seen[1]  # the emptier one first
    seventh, whole = submit("seventh", third), submit("whole", 1)
    on_b = [job for job, gpu in zip(jobs, seen, strict=True) if gpu == "GPU-b"]
    assert not begun("seventh")
    end(on_b[0])
    assert said(tmp_path / "seventh", "\n") == "GPU-b\n"
    on_b[0] = seventh
    for job in on_b:
        assert not begun("whole")
        end(job)
    assert said(tmp_path / "whole", "\n") == "GPU-b\n"
    for job in [*jobs, whole]:
        launcher.cancel(job)
    assert {ended(launcher, job) for job in [*jobs, whole]} == {75}


@pytest.mark.parametrize(
    ("gpus", "cpus", "jobs"),
    [(0, 3, 5), (0, 32, 1), (1, 1, 2), (2, 1, 1), (0.25, 1, 8), (0.3, 1, 6), (0.1, 1, 16)],
)
def test_so_many_jobs_as_cores_and_gpus_have_room_for(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch, gpus: float, cpus: int, jobs: int
) -> None:
    monkeypatch.setattr(launcher_module, "available_cores", lambda: 16)
    assert default_jobs(Resources(cpus, gpus)) == jobs
    monkeypatch.setattr(launcher_module, "visible_gpus", list)
    assert default_jobs(Resources(cpus, gpus)) == 16 // min(16, cpus)  # the GPUs are elsewhere


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("gpus", "message"),
    [
        (3, "asks for 3 GPUs, more than the 2 there are"),
        *((number, "cannot have .* GPUs") for number in (1.5, -1, float("nan"), float("inf"))),
    ],
)
def test_gpus_that_cannot_be_had_are_refused(tmp_path: Path, gpus: float, message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        LocalLauncher().submit(sh(""), tmp_path, Resources(gpus=gpus))


def test_gpus_are_those_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, one_of: Callable[[int], None]
) -> None:
    one_of(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1,9")
    assert launcher_module.visible_gpus() == ["3", "1"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert launcher_module.visible_gpus() == ["0", "1"]


@pytest.fixture
def one_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def there_are(count: int) -> None:
        import torch

        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return there_are
