"""The launcher `slurm`: submitit's local executor, and a stand-in for Slurm's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from simsiam_zoo.catalog import catalog
from simsiam_zoo.plugin import InputError, LaunchError, PluginError, Resources, create_component
from simsiam_zoo.studies.launcher import create_launcher

# Says which signals come, and stops a moment after the first one, as a run that saves.
SAVING = """
import signal, sys, time
got = []
for one in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(one, lambda number, frame: got.append(signal.Signals(number).name))
print("ready", flush=True)
end = time.monotonic() + 30
while time.monotonic() < end and not got:
    time.sleep(0.01)
time.sleep(0.5)
print(*got, flush=True)
sys.exit(75)
"""

SUPERVISOR = """
import sys
from simsiam_zoo_slurm.command import run
argv = [sys.executable, "-c", sys.argv[1]]
sys.exit(run(argv, sys.argv[2], sys.argv[2], {}, sys.argv[2] + "/stop", 30.0, 0.1))
"""


CALLER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from pathlib import Path
from simsiam_zoo.plugin import Resources, create_component
launcher = create_component("launcher", "slurm", cluster="local")
job = launcher.submit([sys.executable, "-c", sys.argv[1]], Path(sys.argv[2]), Resources())
while (code := launcher.poll(job)) is None:
    try:
        time.sleep(0.01)
    except KeyboardInterrupt:
        launcher.cancel(job)
sys.exit(code)
"""


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def ended(launcher: Any, job: str, within: float = 60.0) -> int:
    end = time.monotonic() + within
    while time.monotonic() < end:
        code: int | None = launcher.poll(job)
        if code is not None:
            return code
        time.sleep(0.01)
    raise AssertionError(f"{job} has not ended in {within:g} s")


def log_of(folder: Path) -> str:
    return (folder / "log.txt").read_text() if (folder / "log.txt").exists() else ""


def said(folder: Path, text: str, within: float = 60.0) -> str:
    """The log, once it holds `text`."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if text in log_of(folder):
            return log_of(folder)
        time.sleep(0.01)
    raise AssertionError(f"{text!r} is not in the log: {log_of(folder)!r}")


@pytest.fixture
def launcher() -> Any:
    return create_launcher(catalog().resolve("launcher", "slurm:cluster=local"))


def test_listing_the_launcher_does_not_import_submitit() -> None:
    code = "import sys, simsiam_zoo_slurm; list(simsiam_zoo_slurm.zoo_components()); "
    code += "sys.exit('submitit' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_job_ends_with_the_exit_code_of_its_command_and_its_output_is_in_the_log(
    launcher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLAVOUR", "salt & $HOME")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    for name in ("done", "killed", "missing"):
        (tmp_path / name).mkdir()
    (tmp_path / "done" / "log.txt").write_text("from before\n")
    script = 'pwd; echo "$FLAVOUR, $OMP_NUM_THREADS" >&2; exit 7'
    done = launcher.submit(sh(script), Path("done"), Resources(cpus=2))
    killed = launcher.submit(sh("kill -9 $$"), Path("killed"), Resources())
    missing = launcher.submit(["no-such-program"], Path("missing"), Resources())
    assert ended(launcher, done) == 7
    assert launcher.poll(done) == 7
    assert log_of(tmp_path / "done") == f"from before\n{tmp_path}\nsalt & $HOME, 2\n"
    assert ended(launcher, killed) == -9
    assert ended(launcher, missing) == 127
    assert "no-such-program cannot be started: No such file" in log_of(tmp_path / "missing")
    launcher.cancel(done)
    assert len({done, killed, missing}) == 3


def test_cancel_asks_once(launcher: Any, tmp_path: Path) -> None:
    job = launcher.submit([sys.executable, "-c", SAVING], tmp_path, Resources())
    said(tmp_path, "ready")
    launcher.cancel(job)
    launcher.cancel(job)
    assert ended(launcher, job) == 75
    assert log_of(tmp_path) == "ready\nSIGTERM\n"
    assert not list(tmp_path.glob(".stop*"))


def test_a_command_that_does_not_stop_is_killed_with_its_children(tmp_path: Path) -> None:
    launcher = create_component("launcher", "slurm", cluster="local", grace=0.2)
    stubborn = 'trap "" TERM; sleep 61 & echo $!; while true; do sleep 0.05; done'
    job = launcher.submit(sh(stubborn), tmp_path, Resources())
    child = int(said(tmp_path, "\n"))
    launcher.cancel(job)
    assert ended(launcher, job) == -9
    end = time.monotonic() + 60
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()


def test_ctrl_c_reaches_a_command_through_the_caller_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CALLER, SAVING, str(tmp_path)]
    caller = subprocess.Popen(command, start_new_session=True)
    said(tmp_path, "ready")
    os.killpg(caller.pid, signal.SIGINT)  # as the terminal does
    assert caller.wait(30) == 75
    assert log_of(tmp_path) == "ready\nSIGTERM\n"


def test_a_job_that_vanishes_ends_as_killed(launcher: Any, tmp_path: Path) -> None:
    job = launcher.submit(sh("echo $PPID; sleep 60"), tmp_path, Resources())
    os.kill(int(said(tmp_path, "\n")), signal.SIGKILL)  # as when a node dies
    assert ended(launcher, job) == -9
    assert "Slurm ended job" in log_of(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_the_time_limit_and_preemption_ask_once(tmp_path: Path, number: int) -> None:
    """Slurm tells them by SIGUSR2, as submitit asks it to, and by SIGTERM."""
    command = [sys.executable, "-c", SUPERVISOR, SAVING, str(tmp_path)]
    supervisor = subprocess.Popen(command)
    said(tmp_path, "ready")
    supervisor.send_signal(number)
    time.sleep(0.1)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(30) == 75
    assert log_of(tmp_path) == "ready\nSIGTERM\n"


def test_what_slurm_cannot_do_is_told(
    launcher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LaunchError, match=r"whole GPUs, not 0\.5"):
        launcher.submit(sh(""), tmp_path, Resources(gpus=0.5))
    for method in (launcher.poll, launcher.cancel):
        with pytest.raises(LaunchError, match="launcher slurm has started no job 'slurm-0'"):
            method("slurm-0")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PluginError, match="there is no sbatch here") as caught:
        create_component("launcher", "slurm")
    assert "slurm:cluster=local" in str(caught.value)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with commands called as Slurm's, which write down what they are asked."""
    folder = tmp_path / "slurm-bin"
    folder.mkdir()
    scripts = {
        "sbatch": f'cat "$1" > {folder}/batch; echo Submitted batch job 42',
        "scancel": f'echo "$@" >> {folder}/cancelled',
        "sacct": "echo 'JobID|State|NodeList'; echo '42|PENDING|'",
        "srun": "exit 1",
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_what_is_asked_for_is_in_the_batch_file(slurm: Path, tmp_path: Path) -> None:
    options = "partition=gpu,account=me,hours=1.5,memory=16,options=constraint=a100 --exclusive"
    launcher: Any = create_launcher(catalog().resolve("launcher", f"slurm:{options}"))
    job = launcher.submit(sh(""), tmp_path, Resources(cpus=6, gpus=2))
    assert job.startswith("slurm-42-")
    batch = (slurm / "batch").read_text().splitlines()
    asked = {line.removeprefix("#SBATCH --") for line in batch if line.startswith("#SBATCH")}
    assert asked >= {
        "partition=gpu",
        "account=me",
        "time=90",
        "mem=16GB",
        "constraint=a100",
        "exclusive",
        "no-requeue",
        "nodes=1",
        "cpus-per-task=6",
        "gpus-per-node=2",
        "signal=USR2@180",
    }
    (srun,) = [line for line in batch if line.startswith("srun")]
    assert "--cpus-per-task=6" in srun


def test_a_job_in_the_queue_is_taken_from_it(slurm: Path, tmp_path: Path) -> None:
    launcher = create_component("launcher", "slurm")
    job = launcher.submit(sh(""), tmp_path, Resources())
    assert launcher.poll(job) is None
    launcher.cancel(job)
    launcher.cancel(job)
    assert (slurm / "cancelled").read_text() == "--state=PENDING 42\n"
    assert len(list(tmp_path.glob(".stop*"))) == 1  # should it begin just now


def test_a_submission_that_slurm_refuses_is_told(slurm: Path, tmp_path: Path) -> None:
    refusing = "#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpuu' >&2; exit 1\n"
    (slurm / "sbatch").write_text(refusing)
    with pytest.raises(LaunchError, match=r"sh cannot be submitted: .*invalid partition"):
        create_component("launcher", "slurm", partition="gpuu").submit(
            sh(""), tmp_path, Resources()
        )
    with pytest.raises(InputError, match="cannot be read: No closing quotation"):
        create_component("launcher", "slurm", options='comment="a')
