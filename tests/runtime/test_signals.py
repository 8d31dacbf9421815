from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from simsiam_zoo.runtime.progress import StopRequest

SCRIPT = """
import time
from simsiam_zoo.runtime.progress import StopRequest

def wait(stop):
    deadline = time.monotonic() + 60
    while not stop.requested and time.monotonic() < deadline:
        time.sleep(0.01)

with StopRequest() as stop:
    print("ready", flush=True)
    wait(stop)
    try:
        print("asked" if stop.requested else "never", flush=True)
        time.sleep(20)
    except KeyboardInterrupt:
        print("insisted", flush=True)
print("left", flush=True)
time.sleep(20)
"""


@pytest.mark.parametrize(
    ("first", "second"), [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT"), ("SIGUSR1", "SIGTERM")]
)
def test_the_first_signal_asks_the_second_insists_and_after_that_all_is_as_before(first, second):
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None

        def says(line: str) -> None:
            assert process.stdout.readline() == f"{line}\n"

        says("ready")
        process.send_signal(getattr(signal, first))
        says("asked")  # and nothing was raised
        process.send_signal(getattr(signal, second))
        says("insisted")
        says("left")
        process.send_signal(signal.SIGTERM)
    assert process.returncode == -signal.SIGTERM


def test_outside_the_main_thread_it_never_asks():
    seen: list[bool] = []

    def run() -> None:
        with StopRequest() as stop:
            seen.append(stop.requested)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
    assert signal.getsignal(signal.SIGTERM) is before
