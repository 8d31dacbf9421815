"""Servers that misbehave: what comes from them is right, or an error that names the shard."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from remote_shards import contents, fetch
from served import Handler, Server, serve, slow, status

from simsiam_zoo.components.augmentations import DigitsAugmentation
from simsiam_zoo.data.loader import TrainLoader
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.remote import stores, transfer
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import DataError, InputError

pytestmark = pytest.mark.usefixtures("hasty")

DIGITS = DigitsAugmentation(min_scale=0.4, rotation=15, shear=0.3, brightness=0.4, contrast=0.4)


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
    monkeypatch.setattr(stores, "TIMEOUT", 0.2)
    recovers(server, packed, slow(0.5, 1000))


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
    plan = SampleOrder(far.train.counts, seed=0, batch=8)
    with pytest.raises(DataError, match=r"train-000002\.tar"):
        list(TrainLoader(far.train, plan, DIGITS, 16))
    assert len(server.asked("train-000002.tar")) < 20


def test_no_server_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_told_at", -transfer.TOLD_SECONDS)
    with serve(tmp_path) as gone:
        pass
    with pytest.raises(DataError, match=r"manifest.json cannot be had: no connection.*refused"):
        open_shards(f"{gone.url}/")
    (line,) = capsys.readouterr().err.splitlines()  # a minute of waiting is not silent
    assert "refused); it is tried again, 4 times in all" in line


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

    name = "train-000005.tar"
    server.misbehave[name] = [status(302, Location=f"/{name}?moved")]
    assert fetch(f"{server.url}/{name}", packed / name) == (packed / name).read_bytes()
    assert all(request.authorization for request in server.asked(name))  # the same host

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


def test_no_redirect_leads_from_https_to_http() -> None:
    request = urllib.request.Request("https://host/a.tar")
    with pytest.raises(stores._Refused, match="to http:"):
        stores._Redirects().http_error_302(request, None, 302, "", {"Location": "http://host/b"})


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
