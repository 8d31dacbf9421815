from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made_images import random_png
from served import Handler, Server, serve, slow, status

from simsiam_zoo.components.augmentations import DigitsAugmentation
from simsiam_zoo.data.loader import EvalLoader, TrainLoader
from simsiam_zoo.data.packing.writer import PackedSample, pack
from simsiam_zoo.data.plan import Plan
from simsiam_zoo.data.remote import cache as caching
from simsiam_zoo.data.remote import listing, stores, transfer, urls, web
from simsiam_zoo.data.remote.ahead import limit_cache
from simsiam_zoo.data.remote.cache import RemoteShard, ShardCache
from simsiam_zoo.data.shards import ShardSet, open_shards
from simsiam_zoo.errors import DataError, InputError

DIGITS = DigitsAugmentation(min_scale=0.4, rotation=15, shear=0.3, brightness=0.4, contrast=0.4)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training shards of 4 images and 2 test shards."""
    folder = tmp_path_factory.mktemp("packed")
    samples = [PackedSample(f"k{i:02d}", random_png(i, 16), "png", i % 3) for i in range(56)]
    pack(folder, {"train": samples[:48], "val": samples[48:]}, ("a", "b", "c"), shard_size=4)
    return folder


@pytest.fixture
def server(packed: Path, tmp_path: Path) -> Iterator[Server]:
    """Serves a copy of them, without the indexes."""
    folder = tmp_path / "served"
    folder.mkdir()
    for file in packed.iterdir():
        if file.suffix != ".npz":
            (folder / file.name).write_bytes(file.read_bytes())
    with serve(folder) as served:
        yield served


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(transfer, "LONGEST_WAIT", 0.01)
    monkeypatch.setattr(transfer, "ATTEMPTS", 4)


def contents(shards: ShardSet) -> list[tuple[str, bytes, int]]:
    samples = [shards.read(i) for i in range(len(shards))]
    return [(s.key, bytes(s.image), s.label) for s in samples]


def fetch(url: str, path: Path, checksum: bool = True) -> bytes:
    """The file behind a URL, through the cache; `path` is what it should be."""
    train = open_shards(str(path.parent)).train
    place = [shard.name for shard in train.shards].index(path.name)
    info = train.shards[place]
    shard = RemoteShard(url, info.bytes, info.samples, info.sha256 if checksum else None)
    descriptor = ShardCache().open(shard)
    try:
        return os.pread(descriptor, info.bytes + 1, 0)
    finally:
        os.close(descriptor)


def test_remote_shards_are_the_local_ones(server: Server, packed: Path) -> None:
    for source in ("", "/train-{000000..000011}.tar", "/train-000003.tar"):
        near, far = open_shards(str(packed) + source), open_shards(server.url + source)
        assert not server.asked(".tar")  # what is stated is enough to begin
        assert far.train.digest == near.train.digest
        assert far.train.counts == near.train.counts
        assert far.classes == near.classes
        assert (far.test is None) == (near.test is None)
    near, far = open_shards(str(packed)), open_shards(f"{server.url}/")
    assert contents(far.train) == contents(near.train)
    assert contents(far.test) == contents(near.test)
    assert far.train.labels().tolist() == near.train.labels().tolist()
    assert len(server.asked(".tar")) == 14
    assert far.train.name(5) == f"{server.url}/train-000001.tar: k05"


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_bit_identical_to_local_ones(
    server: Server, packed: Path, workers: int
) -> None:
    near, far = open_shards(str(packed)), open_shards(server.url)
    plan = Plan(near.train.counts, seed=3, batch=8, lanes=2, window=2)
    limit_cache(far, plan, 10 * max(s.bytes for s in far.train.shards))

    def batches(shards: ShardSet, workers: int) -> list[object]:
        loader = TrainLoader(shards, plan, DIGITS, 16, seed=5, epochs=2, workers=workers)
        return list(loader.batches(0, 1))

    ours, theirs = batches(far.train, workers), batches(near.train, 0)
    assert len(ours) == len(theirs) == 11
    for a, b in zip(ours, theirs, strict=True):
        assert (a.epoch, a.step) == (b.epoch, b.step)
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.labels, b.labels)
    evaluated = list(EvalLoader(far.test, 16, batch=3)), list(EvalLoader(near.test, 16, batch=3))
    for a, b in zip(*evaluated, strict=True):
        assert torch.equal(a.pixels, b.pixels)


def occupied(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.iterdir() if f.suffix in (".tar", ".part"))


def test_the_cache_stays_within_its_bound_and_comes_to_hold_what_is_next(
    server: Server, cache: Path
) -> None:
    far = open_shards(server.url)
    plan = Plan(far.train.counts, seed=3, batch=4, window=2)
    largest = sorted((s.bytes for s in far.train.shards), reverse=True)
    least = sum(largest[:4]) + 2 * max(s.bytes for s in (*far.train.shards, *far.test.shards))
    with pytest.raises(InputError, match=r"Set data\.cache_gb") as bad:
        limit_cache(far, plan, least - 1)
    assert f"{least / 1e9:g}" in str(bad.value)
    limit_cache(far, plan, least)

    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            if (cache / "shards").is_dir():
                try:
                    most.append(occupied(cache / "shards"))
                except FileNotFoundError:
                    continue
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        loader = TrainLoader(far.train, plan, DIGITS, 16, epochs=2)
        for loaded in loader:
            here = (loaded.epoch * plan.steps) + loaded.step
            needed = [far.train.paths[i] for i in plan.shards(here, here, epochs=2)]
            until = time.monotonic() + 10
            while not all(path.exists() for path in needed) and time.monotonic() < until:
                time.sleep(0.01)
            assert all(path.exists() for path in needed)  # fetched before anybody reads them
        assert len(contents(far.test)) == 8
    finally:
        done.set()
        watcher.join()
    assert max(most) <= least
    assert len(server.asked(".tar")) > 14  # it was too small for all


def test_the_plan_names_the_shards_of_its_steps() -> None:
    counts = [5, 0, 7, 3, 3, 9, 1, 4, 6, 2]
    for lanes, window, world in ((1, 2, 1), (2, 2, 2), (2, 3, 1), (1, 4, 2), (4, 1, 2)):
        plan = Plan(counts, seed=1, batch=8, lanes=lanes, window=window)
        shard_of = [i for i, count in enumerate(counts) for _ in range(count)]
        for rank in range(world):
            for first in range(3 * plan.steps):
                for last in range(first, min(first + 3, 3 * plan.steps)):
                    named = plan.shards(first, last, 3, rank, world)
                    assert len(set(named)) == len(named)
                    used = {
                        shard_of[id]
                        for at in range(first, last + 1)
                        for id in plan.ids(*divmod(at, plan.steps), rank, world).tolist()
                    }
                    assert used <= set(named)
            if first == last and window * 2 * lanes < len(counts):
                assert len(named) <= window * 2 * lanes


def recovers(server: Server, packed: Path, *misbehaviour: object, checksum: bool = True) -> None:
    path = packed / "train-000000.tar"
    server.misbehave[path.name] = list(misbehaviour)
    url = f"{server.url}/{path.name}"
    assert fetch(url, path, checksum) == path.read_bytes()
    assert not server.misbehave[path.name]


def cut(length: int):
    def act(handler: Handler, content: bytes) -> bool:
        handler.cut(content, length)
        return True

    return act


def test_errors_that_pass_are_survived(server: Server, packed: Path) -> None:
    recovers(server, packed, status(503, Retry_After="0"), status(404), status(429))


def test_a_page_instead_of_the_shard_is_not_taken_for_it(server: Server, packed: Path) -> None:
    def page(handler: Handler, content: bytes) -> bool:
        handler.answer(200, b"<html>busy</html>", {"Content-Type": "text/html"})
        return True

    def page_as_long(handler: Handler, content: bytes) -> bool:
        handler.answer(200, b"<html>".ljust(len(content)))
        return True

    recovers(server, packed, page, page_as_long)


def test_wrong_lengths_are_not_believed(server: Server, packed: Path) -> None:
    def shorter(handler: Handler, content: bytes) -> bool:
        handler.answer(200, content, {"Content-Length": str(len(content) - 512)})
        handler.close_connection = True
        return True

    def longer(handler: Handler, content: bytes) -> bool:
        handler.answer(200, content, {"Content-Length": str(len(content) + 512)})
        handler.close_connection = True
        return True

    def endless(handler: Handler, content: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
        except OSError:
            handler.close_connection = True
        return True

    recovers(server, packed, shorter, longer, endless)


def test_a_cut_connection_goes_on_where_it_was_cut(server: Server, packed: Path) -> None:
    recovers(server, packed, cut(1000), cut(0))
    first, second, third = server.asked("train-000000.tar")
    assert (first.range, second.range, third.range) == (None, "bytes=1000-", None)


def test_a_server_that_ignores_ranges_costs_a_new_start(server: Server, packed: Path) -> None:
    def all_of_it(handler: Handler, content: bytes) -> bool:
        assert handler.headers["Range"] == "bytes=1000-"
        handler.answer(200, content)
        return True

    recovers(server, packed, cut(1000), all_of_it)


@pytest.mark.parametrize("checksum", [True, False])
def test_versions_are_never_mixed(server: Server, packed: Path, checksum: bool) -> None:
    def other_version(handler: Handler, content: bytes) -> bool:
        handler.answer(200, b"x" * 1000, {"Content-Length": str(len(content)), "ETag": '"old"'})
        handler.close_connection = True
        return True

    recovers(server, packed, other_version, checksum=checksum)
    assert server.asked("train-000000.tar")[1].range == "bytes=1000-"  # with If-Range


def test_a_lying_range_is_found_by_the_checksum(server: Server, packed: Path) -> None:
    def other_bytes(handler: Handler, content: bytes) -> bool:
        span = f"bytes 1000-{len(content) - 1}/{len(content)}"
        handler.answer(206, bytes(len(content) - 1000), {"Content-Range": span})
        return True

    recovers(server, packed, cut(1000), other_bytes)


def test_a_part_without_proof_is_not_gone_on_with(server: Server, packed: Path) -> None:
    def cut_unnamed(handler: Handler, content: bytes) -> bool:
        handler.answer(200, b"x" * 1000, {"Content-Length": str(len(content))})
        handler.close_connection = True
        return True

    recovers(server, packed, cut_unnamed, checksum=False)
    assert [request.range for request in server.asked("train-000000.tar")] == [None, None]


def test_a_stalled_connection_is_given_up(
    server: Server, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "READ_SECONDS", 0.2)
    recovers(server, packed, slow(0.05, 16), slow(0.5, 1000))
    monkeypatch.setattr(web, "SLOWEST", 10)
    assert fetch(f"{server.url}/train-000001.tar", packed / "train-000001.tar")


@pytest.mark.parametrize(
    ("code", "words"), [(404, "not there"), (503, "status 503"), (403, "denied")]
)
def test_a_shard_that_cannot_be_had_ends_it_by_name(
    server: Server, packed: Path, code: int, words: str
) -> None:
    far = open_shards(server.url)
    server.misbehave["train-000002.tar"] = [status(code)] * 100
    with pytest.raises(DataError, match=rf"127.0.0.1:\d+/train-000002.tar.*{words}"):
        contents(far.train)
    plan = Plan(far.train.counts, seed=0, batch=8)
    with pytest.raises(DataError, match=r"train-000002\.tar"):
        list(TrainLoader(far.train, plan, DIGITS, 16))
    assert len(server.asked("train-000002.tar")) < 20


def test_no_server_at_all(tmp_path: Path) -> None:
    with serve(tmp_path) as gone:
        pass
    with pytest.raises(DataError, match=r"manifest.json cannot be had: no connection.*refused"):
        open_shards(f"{gone.url}/")


def test_damage_and_wrong_counts_are_told_apart(server: Server, packed: Path) -> None:
    manifest = json.loads((server.folder / "manifest.json").read_text())
    first, second, *_ = manifest["splits"]["train"]["shards"]
    first["samples"], second["samples"] = 3, 5
    (server.folder / "manifest.json").write_text(json.dumps(manifest))
    far = open_shards(server.url).train
    with pytest.raises(DataError, match=r"train-000000.tar holds 4 samples, and 3 are stated"):
        far.read(0)

    content = bytearray((server.folder / "train-000003.tar").read_bytes())
    content[100] ^= 1
    (server.folder / "train-000003.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"train-000003.tar cannot be had: its sha256"):
        far.read(13)
    (server.folder / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"http.*train-000003.tar: the member at offset 0 is ref"):
        open_shards(f"{server.url}/train-000003.tar").train.read(0)


def test_redirects_are_followed_without_credentials_and_to_the_web_only(
    server: Server, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("SIMSIAM_ZOO_HTTP_QUERY", "127.0.0.1=sig=hunter3")
    path, name = packed / "train-000000.tar", "train-000000.tar"
    with serve(server.folder, "127.0.0.2") as other:
        server.misbehave[name] = [status(302, Location=f"{other.url}/{name}?signed=hunter4")]
        assert fetch(f"{server.url}/{name}", path) == path.read_bytes()
        (at_home,), (abroad,) = server.asked(name), other.asked(name)
    assert at_home.authorization is not None
    assert at_home.path.endswith("?sig=hunter3")
    assert abroad.authorization is None
    assert "hunter3" not in abroad.path

    sentinel = tmp_path / "sentinel"
    sentinel.write_bytes(path.read_bytes())
    for number, (location, words) in enumerate(
        {
            f"file://{sentinel}": "redirects to file:",
            "ftp://127.0.0.1/x": "redirects to ftp:",
            "http://me:hunter5@127.0.0.1/x": "with a password",
            f"{server.url}/train-000001.tar?again": "more than 5 times",
        }.items(),
        start=1,
    ):
        name = f"train-00000{number}.tar"
        server.misbehave[name] = [status(302, Location=location)] * 10
        server.misbehave["train-000001.tar"] = [status(302, Location=location)] * 10
        with pytest.raises(DataError, match=words) as caught:
            fetch(f"{server.url}/{name}", packed / name)
        assert "hunter" not in str(caught.value)


def test_a_token_goes_to_its_host_only(
    server: Server, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMSIAM_ZOO_HTTP_TOKEN", "127.0.0.1=hunter2")
    fetch(f"{server.url}/train-000000.tar", packed / "train-000000.tar")
    monkeypatch.setenv("SIMSIAM_ZOO_HTTP_TOKEN", "other.example=hunter2")
    fetch(f"{server.url}/train-000001.tar", packed / "train-000001.tar")
    sent = [request.authorization for request in server.asked(".tar")]
    assert sent == ["Bearer hunter2", None]
    monkeypatch.setenv("SIMSIAM_ZOO_HTTP_TOKEN", "hunter2")
    with pytest.raises(InputError, match="HOST=SECRET") as caught:
        fetch(f"{server.url}/train-000002.tar", packed / "train-000002.tar")
    assert "hunter2" not in str(caught.value)


def test_counts_come_from_timms_file_or_the_set_is_refused(server: Server, packed: Path) -> None:
    near = open_shards(str(packed)).train
    (server.folder / "manifest.json").unlink()
    far = open_shards(server.url).train
    assert far.counts == near.counts
    assert [s.bytes for s in far.shards] == [s.bytes for s in near.shards]
    assert contents(far) == contents(near)

    info = server.folder / "_info.json"
    whole = json.loads(info.read_text())
    for damage in (
        {"filenames": ["../x.tar"], "shard_lengths": [1]},
        {"filenames": ["x.tar"], "shard_lengths": [-1]},
        {"filenames": ["x.tar"], "shard_lengths": [1e300]},
        {"filenames": ["x.tar"], "shard_lengths": []},
        {"filenames": "x-{0..99999999999}.tar", "shard_lengths": []},
        {"filenames": None, "shard_lengths": None},
        [],
    ):
        info.write_text(json.dumps({"splits": {"train": damage}}))
        with pytest.raises(DataError, match=r"_info\.json is damaged"):
            open_shards(server.url)
    for text in ("<html>", "[" * 100_000, "9" * 10_000):
        info.write_text(text)
        with pytest.raises(DataError, match=r"_info\.json is damaged"):
            open_shards(server.url)
    del whole["splits"]["train"]["filenames"][3], whole["splits"]["train"]["shard_lengths"][3]
    info.write_text(json.dumps(whole))
    with pytest.raises(InputError, match=r"train-000003.tar: no manifest.json.*(\n.*)*--stream"):
        open_shards(f"{server.url}/train-{{000000..000005}}.tar")
    info.unlink()
    with pytest.raises(InputError, match="simsiam-zoo index"):
        open_shards(server.url)


def test_a_manifest_is_not_read_beyond_its_bound(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_MANIFEST_BYTES", 100)
    with pytest.raises(DataError, match=r"manifest.json is absurdly large"):
        open_shards(server.url)


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
        from simsiam_zoo.data.shards import open_shards
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
        from simsiam_zoo.data.shards import open_shards
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
    (parts[0].with_suffix(".etag")).write_text(
        ""
    )  # not of this server's version; the sum will tell
    assert contents(open_shards(server.url).train)[0][0] == "k00"
    assert server.asked(path.name)[1].range == "bytes=2000-"
    assert not list(cache.glob("shards/*.part"))
    assert not list(cache.glob("shards/*.etag"))


def test_what_a_dead_process_left_is_room(server: Server, packed: Path, cache: Path) -> None:
    shards = [s.remote for s in open_shards(server.url).train.shards]
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
    shards = [s.remote for s in open_shards(server.url).train.shards]
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


def test_object_stores_are_read_through_fsspec(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(urls, "SCHEMES", (*urls.SCHEMES, "memory"))
    monkeypatch.setattr(stores, "BLOCK", 1000)
    for file in packed.glob("*.*"):
        memory.pipe_file(f"/bucket/{file.name}", file.read_bytes())
    try:
        near, far = open_shards(str(packed)), open_shards("memory://bucket/")
        assert far.train.digest == near.train.digest
        whole, failures = type(memory).cat_file, [3, 7]

        def flaky(self: object, path: str, start: int, end: int, **options: object) -> bytes:
            failures[:] = [left - 1 for left in failures if left]
            if 0 in failures:
                raise ConnectionError("https://signed?hunter2")
            return whole(self, path, start=start, end=end, **options)

        monkeypatch.setattr(type(memory), "cat_file", flaky)
        assert contents(far.train) == contents(near.train)
        memory.rm("/bucket/val-000001.tar")
        with pytest.raises(DataError, match=r"memory://bucket/val-000001.tar cannot be had"):
            far.test.read(7)
        memory.rm("/bucket/manifest.json")
        assert open_shards("memory://bucket/train-000003.tar").train.counts == (4,)
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_missing_store_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=r"pip install 'simsiam-zoo\[s3\]'"):
        open_shards("s3://bucket/")
