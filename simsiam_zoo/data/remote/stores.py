"""Files behind http(s) URLs, and in object stores (s3, gs, hf).

For http(s) urllib3 rather than fsspec's file system: redirects, Range, ETag and status codes are
followed here one by one, and credentials are kept from other hosts; an abstraction over all stores
hides that. Object stores are read by fsspec; each store's package is an extra.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import netrc
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from simsiam_zoo.data.remote.urls import CREDENTIALS, host_of, redacted
from simsiam_zoo.errors import DataError, InputError

WEB_BLOCK = 1 << 20
"""Most bytes held at once of what comes in."""


class Unavailable(Exception):
    """Not to be had this time; worth another try.

    Args:
        reason: in words, without any URL.
        wait: seconds that the server asks to wait, or NaN.
    """

    def __init__(self, reason: str, wait: float = math.nan) -> None:
        super().__init__(reason)
        self.reason, self.wait = reason, wait


class Missing(Unavailable):
    """There is no such file."""


class StartOver(Unavailable):
    """What was kept of an earlier try is not a part of this file."""


@dataclass
class Answer:
    """What a store answers: bytes of a file from `start` on.

    Attributes:
        start: where `blocks` begin.
        total: size of the whole file, None where it is not told.
        etag: names this version of the file byte by byte, None where nothing does.
        blocks: the bytes; may raise Unavailable.
        close: lets the connection go.
    """

    start: int
    total: int | None
    etag: str | None
    blocks: Iterator[bytes]
    close: Callable[[], None]
    version: str = ""
    """Tells this version of the file from others: an ETag of any kind, or when it was changed."""


CONNECT_SECONDS, READ_SECONDS = 15.0, 60.0
SLOWEST = 1024
"""Bytes per second, over `READ_SECONDS`, below which a connection counts as stalled."""
MAX_REDIRECTS = 5
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "simsiam-zoo"}
_REDIRECTS = (301, 302, 303, 307, 308)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})\Z")


def open_url(url: str, start: int = 0, etag: str | None = None) -> Answer:
    """Ask for `url` from `start` on, or from 0 where what is there is not the `etag` version.

    Raises:
        Unavailable, Missing, StartOver, DataError, InputError: as `open_web` and `open_object` say.
    """
    opened = open_web if url.startswith(("http://", "https://")) else open_object
    return opened(url, start, etag)


def stored_file(url: str) -> tuple[int, str]:
    """The size of a remote file in bytes and its version, "" where it has none.

    Raises as `open_url` does.
    """
    try:  # one byte is asked for: not every server answers HEAD
        web = url.startswith(("http://", "https://"))
        answer = open_web(url, 0, None, last=0) if web else open_object(url, 0, None)
    except StartOver:  # there is not one
        return 0, ""
    answer.close()
    if answer.total is None:
        raise Unavailable("the server does not tell its size")
    return answer.total, answer.version


def open_web(url: str, start: int, etag: str | None, last: int | None = None) -> Answer:
    """The bytes of `url` from `start` on (to `last`), or from 0 where the server will not.

    It does not either where its ETag is not `etag` any more.

    Raises:
        Unavailable: not this time. Missing: 404. StartOver: what was read before is of no use.
        DataError: access is denied, or it redirects to where nobody should follow.
    """
    headers = dict(_HEADERS)
    if start or last is not None:
        headers["Range"] = f"bytes={start}-{'' if last is None else last}"
        if etag:
            headers["If-Range"] = etag
    response = _follow(url, headers)
    try:
        return _answer(url, response, start)
    except BaseException:
        response.close()
        raise


def _answer(url: str, response: urllib3.BaseHTTPResponse, start: int) -> Answer:
    status, headers = response.status, response.headers
    total: int | None
    if status == 206:
        found = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
        if found is None or int(found[1]) != start:
            raise StartOver("the server answered with another range than was asked for")
        begin, total = start, int(found[3])
    elif status == 200:
        length = headers.get("Content-Length", "")
        begin = 0
        total = int(length) if re.fullmatch(r"\d{1,19}", length) else None
    elif status == 416:
        raise StartOver("the file there is shorter than what was read of it before")
    elif status in (401, 403):
        raise DataError(f"{redacted(url)}: access is denied (status {status})", CREDENTIALS)
    elif status in (404, 410):
        raise Missing(f"it is not there (status {status})")
    else:
        seconds = headers.get("Retry-After", "")
        wait = float(seconds) if re.fullmatch(r"\d{1,6}", seconds) else math.nan
        raise Unavailable(f"the server answered with status {status}", wait)
    tag = headers.get("ETag", "")
    strong = tag if re.fullmatch(r'"[\x21\x23-\x7e]{0,200}"', tag) else None
    version = (tag or headers.get("Last-Modified", ""))[:200]
    return Answer(begin, total, strong, _web_blocks(response), response.close, version)


def _web_blocks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    began, got = time.monotonic(), 0
    while True:
        try:
            block = response.read1(WEB_BLOCK, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Unavailable(f"the connection broke ({_reason(error)})") from None
        if not block:
            return
        got += len(block)
        elapsed = time.monotonic() - began
        if elapsed > READ_SECONDS:
            if got < SLOWEST * elapsed:
                raise Unavailable(f"only {got} bytes came in {elapsed:.0f} seconds")
            began, got = time.monotonic(), 0
        yield block


def _follow(url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    """The first answer that is no redirect. Credentials go to the origin of `url` alone."""
    origin, secret = _origin(url), _authorization(url)
    query = _of_host("SIMSIAM_ZOO_HTTP_QUERY", origin[1])
    target = f"{url}?{query}" if query else url
    for _ in range(MAX_REDIRECTS + 1):
        own = secret if _origin(target) == origin else {}
        response = _request(target, {**headers, **own})
        if response.status not in _REDIRECTS:
            return response
        location = response.headers.get("Location", "")
        response.close()
        target = _redirected(url, target, location)
    raise DataError(f"{redacted(url)} redirects more than {MAX_REDIRECTS} times")


def _redirected(url: str, target: str, location: str) -> str:
    try:
        found = urljoin(target, location)
        parts = urlsplit(found)
        secure, host, _ = parts.scheme == "https", parts.hostname, parts.port
    except ValueError:
        raise DataError(f"{redacted(url)} redirects to what is no URL") from None
    downgrade = urlsplit(target).scheme == "https" and not secure
    if parts.scheme not in ("http", "https") or downgrade or not host:
        scheme = redacted(parts.scheme) or "nowhere"
        raise DataError(f"{redacted(url)} redirects to {scheme}:, which is refused")
    if "@" in parts.netloc:
        raise DataError(f"{redacted(url)} redirects to a URL with a password, which is refused")
    return found


def _request(target: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    try:
        return _pool(_proxy(target)).request(
            "GET",
            target,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        )
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        reason = f"no connection to {host_of(target)} ({_reason(error)})"
        raise Unavailable(reason) from None


@functools.lru_cache(maxsize=8)
def _pool(proxy: str | None) -> urllib3.PoolManager:
    if proxy is None:
        return urllib3.PoolManager(maxsize=16)
    auth = urlsplit(proxy)
    headers = None
    if auth.username:
        headers = urllib3.make_headers(proxy_basic_auth=f"{auth.username}:{auth.password or ''}")
    return urllib3.ProxyManager(proxy, proxy_headers=headers, maxsize=16)


def _proxy(target: str) -> str | None:
    """The proxy that the environment names for it, as for every other tool."""
    parts = urlsplit(target)
    if parts.hostname and proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port


def _authorization(url: str) -> dict[str, str]:
    """The header that the environment or ~/.netrc has for the host of `url`."""
    host = _origin(url)[1]
    if token := _of_host("SIMSIAM_ZOO_HTTP_TOKEN", host):
        return {"Authorization": f"Bearer {token}"}
    try:
        entry = netrc.netrc(os.environ.get("NETRC")).hosts.get(host)
    except FileNotFoundError:
        return {}
    except (OSError, netrc.NetrcParseError):  # its own text would show lines of the file
        raise InputError("the netrc file cannot be read", "See `man netrc`.") from None
    return urllib3.make_headers(basic_auth=f"{entry[0]}:{entry[2]}") if entry else {}


def _of_host(variable: str, host: str) -> str | None:
    """The secret of `HOST=SECRET` in an environment variable, if it is for this host."""
    value = os.environ.get(variable)
    if not value:
        return None
    for_host, equals, secret = value.partition("=")
    if not equals or not for_host or not secret.isprintable():
        raise InputError(f"{variable} is spelled HOST=SECRET")
    return secret if for_host.lower() == host else None


def _reason(error: BaseException) -> str:
    """What happened, without the URL that urllib3 writes into its messages."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, TimeoutError):
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


OBJECT_BLOCK = 8 << 20
"""Bytes asked for at once."""

_VERSION = ("ETag", "etag", "md5Hash", "md5", "generation", "blob_id", "last_modified", "mtime")
"""Where the stores keep what names a version of a file."""


def open_object(url: str, start: int, etag: str | None) -> Answer:
    """The bytes of an object from `start` on, or from 0 where it is not the `etag` version.

    Raises:
        Unavailable: not this time. Missing: there is none.
        InputError: the store's package is not installed.
    """
    system, path = _open(url)
    info = _asked(lambda: system.info(path))
    size, tag = int(info["size"]), _tag(info)
    if start > size or (etag is not None and etag != tag):
        start = 0
    blocks = _object_blocks(system, path, start, size)
    return Answer(start, size, tag, blocks, lambda: None, tag or "")


def _object_blocks(system: Any, path: str, start: int, size: int) -> Iterator[bytes]:
    for at in range(start, size, OBJECT_BLOCK):
        end = min(at + OBJECT_BLOCK, size)
        block = _asked(lambda at=at, end=end: system.cat_file(path, start=at, end=end))
        if len(block) != end - at:
            raise Unavailable(f"{len(block)} of {end - at} bytes came at {at}")
        yield block


def _open(url: str) -> tuple[Any, str]:
    import fsspec

    scheme, _, path = url.partition("://")
    try:
        # The path is given as it is: fsspec is never shown a URL that it could take apart.
        return fsspec.filesystem(scheme), path
    except ImportError:
        raise InputError(
            f"{scheme}:// needs a package that is not installed",
            f"Install it: pip install 'simsiam-zoo[{scheme}]'.",
        ) from None
    except Exception as error:  # no credentials, no configuration: each store has its own
        raise Unavailable(f"{scheme}:// cannot be opened ({type(error).__name__})") from None


def _asked(call: Any) -> Any:
    """What the store answers. Its own messages are not shown: they may hold signed URLs."""
    try:
        return call()
    except FileNotFoundError:
        raise Missing("it is not there") from None
    except Exception as error:  # what the stores raise is listed nowhere
        raise Unavailable(f"the store failed ({type(error).__name__})") from None


def _tag(info: dict[str, Any]) -> str | None:
    known = {key: str(info[key]) for key in _VERSION if info.get(key)}
    if not known:
        return None
    text = json.dumps(known, sort_keys=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
