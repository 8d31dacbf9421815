from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simsiam_zoo.data.processes import run_tasks
from simsiam_zoo.errors import DataError, InputError


class Squares:
    def __init__(self, fails: int = -1, dies: int = -1) -> None:
        self.fails, self.dies = fails, dies

    def run(self, number: int) -> int:
        if number == self.dies:
            os._exit(1)  # as the kernel ends what needs too much memory
        if number == self.fails:
            raise InputError("no", "a way out")
        return number**2


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_task_is_done_once_and_errors_come_whole(jobs):
    assert sorted(run_tasks(Squares().run, 20, jobs)) == [(i, i**2) for i in range(20)]
    assert list(run_tasks(Squares().run, 0, jobs)) == []
    with pytest.raises(InputError) as caught:
        list(run_tasks(Squares(fails=3).run, 20, jobs))
    assert (caught.value.what, caught.value.hint) == ("no", "a way out")


def test_a_worker_that_dies_is_an_error_and_no_hang():
    with pytest.raises(DataError, match="a worker process died"):
        list(run_tasks(Squares(dies=5).run, 20, 2))


WORK = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_tasks import Slow
from simsiam_zoo.data.processes import run_tasks
if __name__ == "__main__":
    print("ready", flush=True)
    done = sum(1 for _ in run_tasks(Slow().run, 4, 2))
    print(done, flush=True)
"""


@pytest.mark.parametrize("guard", [False, True])
def test_a_script_that_workers_would_run_again_is_told_what_it_lacks(tmp_path, guard):
    lines = ["print('begins')", "print([*run_tasks(str, 2, 2)])"]
    first = 'if __name__ == "__main__":' if guard else "if True:"
    body = "".join(f"    {line}\n" for line in lines)
    script = tmp_path / "my script.py"
    script.write_text(f"from simsiam_zoo.data.processes import run_tasks\n{first}\n{body}")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    if guard:
        assert done.stdout.startswith("begins\n[("), done.stderr
        return
    assert done.stdout == "begins\n"
    assert done.stderr.count("Traceback") == 1
    *_, what, hint = done.stderr.splitlines()
    assert f"{script} would run again in each worker process" in what
    assert 'if __name__ == "__main__":' in hint


class Slow:
    def run(self, number: int) -> int:
        time.sleep(0.1)
        return number


def work(cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", WORK, str(Path(__file__).parent)],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_files_in_the_working_folder_are_not_executed_by_worker_processes(tmp_path):
    executed = tmp_path / "executed"
    for name in ("pickle", "random", "socket", "struct"):
        (tmp_path / f"{name}.py").write_text(f"open({str(executed)!r}, 'w'); raise SystemExit(9)")
    out, err = work(cwd=tmp_path).communicate(timeout=120)
    assert out.split() == ["ready", "4"], err
    assert not executed.exists()
    assert "PYTHONSAFEPATH" not in os.environ


@pytest.mark.parametrize("where", ["tracker", "server"])
def test_processes_that_cannot_start_are_neither_ctrl_c_nor_a_reader_that_left(where):
    code = f"""
import multiprocessing, multiprocessing.resource_tracker, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_tasks import Slow
from simsiam_zoo.cli import root, main
from simsiam_zoo.data.processes import run_tasks
if {where!r} == "server":
    multiprocessing.resource_tracker.ensure_running()
multiprocessing.set_executable("/bin/false")
root.callback = lambda **_: list(run_tasks(Slow().run, 4, 2))
root.invoke_without_command = True
root.no_args_is_help = False
main([])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == DataError.exit_code, done.stderr
    assert "a worker process cannot be started" in done.stderr or "died" in done.stderr
    assert "Interrupted" not in done.stderr


def test_ctrl_c_while_workers_start_is_met_by_the_main_process_alone():
    """A terminal sends it to all; what starts must not print its traceback, nor die."""
    with work() as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        for child in range(40):  # all the while that they start
            for pid in children(process.pid):
                with contextlib.suppress(ProcessLookupError):  # it ended since it was listed
                    os.kill(pid, signal.SIGINT)
            time.sleep(0.05)
            if child and process.poll() is not None:
                break
        assert process.stdout.read() == "4\n"
        assert process.stderr.read() == ""


def children(parent: int) -> list[int]:
    """All processes below one."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True
    ).stdout.split()
    return [pid for one in map(int, found) for pid in (one, *children(one))]
