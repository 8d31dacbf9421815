"""A web server on this machine that serves a folder, and misbehaves on request."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

Misbehaviour = Callable[["Handler", bytes], bool]
"""Given the request and the file's bytes: answer it and return True, or False for a good answer."""


@dataclass
class Request:
    path: str
    range: str | None
    authorization: str | None
    host: str | None


@dataclass
class Server:
    url: str
    folder: Path
    requests: list[Request] = field(default_factory=list)
    misbehave: dict[str, list[Misbehaviour]] = field(default_factory=dict)
    """By a file's name: one for each of the next requests of it."""
    whole: int = 0
    """Bytes of bodies sent."""

    def asked(self, name: str) -> list[Request]:
        return [r for r in self.requests if r.path.partition("?")[0].endswith(name)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        served, headers = self.served, self.headers
        served.requests.append(
            Request(self.path, headers["Range"], headers["Authorization"], headers["Host"])
        )
        name = unquote(self.path.partition("?")[0].lstrip("/"))
        file = served.folder / name
        content = file.read_bytes() if file.is_file() else b""
        waiting = served.misbehave.get(file.name)
        if waiting and waiting.pop(0)(self, content):
            return
        if not file.is_file():
            self.answer(404)
            return
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        asked = re.match(r"bytes=(\d+)-(\d*)$", headers["Range"] or "")
        if asked and headers["If-Range"] in (None, etag):
            begin, end = int(asked[1]), int(asked[2] or len(content) - 1)
            if begin >= len(content):
                self.answer(416)
                return
            end = min(end, len(content) - 1)
            span = f"bytes {begin}-{end}/{len(content)}"
            self.answer(206, content[begin : end + 1], {"ETag": etag, "Content-Range": span})
        else:
            self.answer(200, content, {"ETag": etag})

    def answer(
        self, status: int, content: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)
        self.served.whole += len(content)

    def cut(self, content: bytes, length: int) -> None:
        """Say how much there is, send `length` bytes and hang up."""
        self.answer(200, content[:length], {"Content-Length": str(len(content)), "ETag": '"v1"'})
        self.wfile.flush()
        self.close_connection = True


def status(code: int, **headers: str) -> Misbehaviour:
    def act(handler: Handler, content: bytes) -> bool:
        handler.answer(code, b"no", {k.replace("_", "-"): v for k, v in headers.items()})
        return True

    return act


def slow(seconds: float, block: int) -> Misbehaviour:
    """A good answer, `block` bytes at a time."""

    def act(handler: Handler, content: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        for at in range(0, len(content), block):
            try:
                handler.wfile.write(content[at : at + block])
                handler.wfile.flush()
            except OSError:
                handler.close_connection = True
                break
            time.sleep(seconds)
        return True

    return act


@contextmanager
def serve(folder: Path, host: str = "127.0.0.1") -> Iterator[Server]:
    class Own(Handler):
        pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # clients that hang up are what is tested

    with Quiet((host, 0), Own) as http:
        Own.served = Server(f"http://{host}:{http.server_port}", folder)
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Own.served
        finally:
            http.shutdown()
            thread.join()
