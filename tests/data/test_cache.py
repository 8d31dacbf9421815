"""The cache of remote shards: bounded, shared, fetched ahead; killed processes leave no harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from remote_shards import contents
from served import Handler, Server, slow

from simsiam_zoo.components.augmentations import DigitsAugmentation
from simsiam_zoo.data.loader import TrainLoader
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.remote import cache as caching
from simsiam_zoo.data.remote.ahead import limit_cache
from simsiam_zoo.data.remote.cache import ShardCache
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import DataError, InputError

pytestmark = pytest.mark.usefixtures("hasty")

DIGITS = DigitsAugmentation(min_scale=0.4, rotation=15, shear=0.3, brightness=0.4, contrast=0.4)


def occupied(folder: Path) -> int:
    """Bytes of shards there; 0 where files came or went meanwhile: no moment had that sum."""
    before = sorted(folder.iterdir())
    size = sum(f.stat().st_size for f in before if f.suffix in (".tar", ".part"))
    return size if sorted(folder.iterdir()) == before else 0


def test_the_cache_stays_within_its_bound_and_comes_to_hold_what_is_next(
    server: Server, cache: Path
) -> None:
    far = open_shards(server.url)
    plan = SampleOrder(far.train.counts, seed=3, batch=4, window=2)
    largest = sorted((s.bytes for s in far.train.shards), reverse=True)
    least = sum(largest[:4]) + 2 * max(s.bytes for s in (*far.train.shards, *far.test.shards))
    with pytest.raises(InputError, match=r"Set data\.cache_gb") as bad:
        limit_cache(far, 1, 2, least - 1)
    assert f"{least / 1e9:g}" in str(bad.value)
    limit_cache(far, 1, 2, least)

    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            if (cache / "shards").is_dir():
                try:
                    most.append(occupied(cache / "shards"))
                except FileNotFoundError:
                    continue
            time.sleep(0.001)

    progress = threading.Thread(target=watch)
    progress.start()
    try:
        loader = TrainLoader(far.train, plan, DIGITS, 16, epochs=2)
        for loaded in loader:
            here = (loaded.epoch * plan.steps) + loaded.step
            needed = [far.train.paths[i] for i in plan.shards(here, here, epochs=2)]
            until = time.monotonic() + 60
            while not all(path.exists() for path in needed) and time.monotonic() < until:
                time.sleep(0.01)
            assert all(path.exists() for path in needed)  # fetched before anybody reads them
        assert len(contents(far.test)) == 8
    finally:
        done.set()
        progress.join()
    assert max(most) <= least
    assert len(server.asked(".tar")) > 14  # it was too small for all


def test_equal_names_elsewhere_do_not_collide(server: Server, packed: Path) -> None:
    for folder, source in (("a", "train-000000.tar"), ("b", "train-000001.tar")):
        (server.folder / folder).mkdir()
        manifest = json.loads((server.folder / "manifest.json").read_text())
        shards = manifest["splits"]["train"]["shards"]
        chosen = next(s for s in shards if s["name"] == source)
        manifest["splits"] = {
            "train": {"samples": 4, "classes": None, "shards": [{**chosen, "name": "train-0.tar"}]}
        }
        (server.folder / folder / "manifest.json").write_text(json.dumps(manifest))
        content = (packed / source).read_bytes()
        (server.folder / folder / "train-0.tar").write_bytes(content)
    both = [open_shards(f"{server.url}/{folder}/").train for folder in "ab"]
    near = open_shards(str(packed)).train
    assert contents(both[0]) + contents(both[1]) == contents(near)[:8]


def run_apart(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_share_what_is_fetched(server: Server, packed: Path) -> None:
    code = """
        import sys
        from simsiam_zoo.data.sources import open_shards
        train = open_shards(sys.argv[1]).train
        print(sum(len(train.read(i).image) for i in range(len(train))))
    """
    for number in range(12):
        server.misbehave[f"train-{number:06d}.tar"] = [slow(0.01, 1000)]
    both = [run_apart(code, server.url) for _ in range(2)]
    said = [int(one.communicate(timeout=60)[0]) for one in both]
    near = open_shards(str(packed)).train
    assert said == [sum(len(image) for _, image, _ in contents(near))] * 2
    assert len(server.asked(".tar")) == 12


def test_a_killed_download_goes_on(server: Server, packed: Path, cache: Path) -> None:
    path = packed / "train-000000.tar"

    def begin(handler: Handler, content: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.send_header("ETag", '"other"')
        handler.end_headers()
        handler.wfile.write(content[:2000])
        handler.wfile.flush()
        time.sleep(20)
        handler.close_connection = True
        return True

    server.misbehave[path.name] = [begin]
    code = """
        import sys
        from simsiam_zoo.data.sources import open_shards
        open_shards(sys.argv[1]).train.read(0)
    """
    victim = run_apart(code, server.url)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        parts = list(cache.glob("shards/*.part"))
        if parts and parts[0].stat().st_size == 2000:
            break
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert parts[0].stat().st_size == 2000
    assert contents(open_shards(server.url).train)[0][0] == "k00"
    assert server.asked(path.name)[1].range == "bytes=2000-"
    assert not list(cache.glob("shards/*.part"))


def test_what_a_dead_process_left_is_room(server: Server, packed: Path, cache: Path) -> None:
    shards = open_shards(server.url).train.shards
    limit = shards[0].bytes + 10
    left = ShardCache(limit).path(shards[1]).with_suffix(".part")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    os.close(ShardCache(limit).open(shards[0]))
    assert not left.exists()


def test_pinned_shards_stay_and_say_so_when_there_is_no_room(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "ROOM_SECONDS", 0.3)
    shards = open_shards(server.url).train.shards
    cache = ShardCache(shards[0].bytes + shards[1].bytes)
    held = [cache.hold(shard) for shard in shards[:2]]
    with pytest.raises(DataError, match="full of shards in use"):
        cache.open(shards[2])
    os.close(held.pop())
    os.close(cache.open(shards[2]))
    assert cache.path(shards[0]).exists()
    assert not cache.path(shards[1]).exists()
    os.close(held.pop())


def test_a_reader_lets_go_of_what_was_removed(server: Server) -> None:
    far = open_shards(server.url).train
    far.cache = ShardCache(sum(s.bytes for s in far.shards[:2]))
    before = len(os.listdir("/proc/self/fd"))
    contents(far)
    assert len(os.listdir("/proc/self/fd")) <= before + 3
    far.close()


def test_an_index_that_cannot_be_made_anew_leaves_nothing_open(server: Server, cache: Path) -> None:
    far = open_shards(server.url).train
    os.close(far.cache.open(far.shards[0]))
    for index in (cache / "indexes").iterdir():
        index.unlink()
    os.close(far.cache.open(far.shards[0]))
    assert len(server.asked(far.shards[0].name)) == 1
    far.cache.index(far.shards[0]).unlink()
    (cache / "indexes").rmdir()
    (cache / "indexes").touch()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(InputError, match=r"cannot be used: .*\n  Set SIMSIAM_ZOO_CACHE"):
        far.cache.open(far.shards[0])
    assert os.listdir("/proc/self/fd") == before
