"""Workers end when nobody wants them any more, whatever they are doing."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made_images import random_png
from served import Handler, Server, serve

from simsiam_zoo.data.loader import EvalLoader
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.sources import open_shards


def stalling(server: Server, name: str) -> Callable[[], None]:
    """Have the server send nothing of a file; what comes back waits until it was asked for it."""
    asked = threading.Event()

    def stall(handler: Handler, content: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        asked.set()
        time.sleep(30)
        handler.close_connection = True
        return True

    server.misbehave[name] = [stall] * 9
    return lambda: None if asked.wait(20) else pytest.fail("nobody asked for it")


@pytest.fixture
def two_shards(tmp_path: Path) -> Path:
    samples = [PackedSample(str(i), random_png(i), "png", i) for i in range(8)]
    pack_dataset(tmp_path, {"train": samples}, None, shard_size=4)
    return tmp_path


def test_a_worker_stuck_in_a_download_is_gone_soon_after_its_loader(two_shards: Path) -> None:
    with serve(two_shards) as server:
        wait = stalling(server, "train-000001.tar")
        batches = iter(EvalLoader(open_shards(server.url).train, 8, batch=4, workers=1))
        next(batches)
        wait()
        start = time.monotonic()
        batches.close()
        assert time.monotonic() - start < 4
        assert not multiprocessing.active_children()


LEAVE = """
import sys
from simsiam_zoo.data.loader import EvalLoader
from simsiam_zoo.data.sources import open_shards

if __name__ == "__main__":
    batches = iter(EvalLoader(open_shards(sys.argv[1]).train, 8, batch=4, workers=1))
    next(batches)
    print("here", flush=True)
    sys.stdin.readline()
"""


def test_a_process_that_exits_does_not_wait_for_it(two_shards: Path) -> None:
    script = two_shards / "leave.py"
    script.write_text(LEAVE)
    with serve(two_shards) as server:
        wait = stalling(server, "train-000001.tar")
        process = subprocess.Popen(
            [sys.executable, str(script), server.url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout.readline() == "here\n"
        wait()
        start = time.monotonic()
        _, said = process.communicate("\n", timeout=25)
        assert time.monotonic() - start < 20  # of the server's 30
        assert (process.returncode, said) == (0, "")
