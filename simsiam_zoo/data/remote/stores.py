"""Files behind http(s) URLs, and in object stores (s3, gs, hf).

http(s) is read by Python's own client: redirects, Range and ETag can be followed one by one, and
credentials kept from other hosts. Object stores are read by fsspec, with each store's package.
"""

from __future__ import annotations

import base64
import functools
import http.client
import math
import netrc
import os
import re
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit

from simsiam_zoo.data.remote.urls import CREDENTIALS, redacted
from simsiam_zoo.errors import DataError, InputError

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""
WEB_BLOCK, OBJECT_BLOCK = 1 << 20, 8 << 20
"""Most bytes of a file that are asked for at once."""
MAX_REDIRECTS = 5
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})\Z")


class Unavailable(Exception):
    """Not to be had this time; worth another try, after the seconds that the server asks for."""

    def __init__(self, reason: str, wait: float = math.nan) -> None:
        super().__init__(reason)
        self.reason, self.wait = reason, wait  # the reason holds no URL


class Missing(Unavailable):
    """There is no such file."""


class Denied(DataError):
    """Access to a file is denied; some stores say so of one that is not there."""


class StartOver(Unavailable):
    """What was kept of an earlier try is not a part of this file."""


@dataclass
class Answer:
    """What a store answers: bytes of a file from `start` on."""

    start: int
    total: int | None  # size of the whole file, where it is told
    etag: str | None  # names this version of the file byte by byte, where something does
    version: str  # tells it from other versions: an ETag of any kind, or when it was changed
    blocks: Iterator[bytes]  # may raise Unavailable
    close: Callable[[], None]


def open_url(url: str, start: int = 0, etag: str | None = None, last: int | None = None) -> Answer:
    """The bytes of `url` from `start` on, or from 0 where that is not the `etag` version any more.

    With `last` a web server is asked for the bytes up to it. Raises Unavailable and its kinds;
    DataError where access is denied, or it redirects to where nobody should follow; InputError
    where the store's package is not installed, or credentials are misspelled.
    """
    if not url.startswith(("http://", "https://")):
        return _open_object(url, start, etag)
    request = urllib.request.Request(url, headers={"User-Agent": "simsiam-zoo"})
    for name, value in _authorization(url).items():
        request.add_unredirected_header(name, value)
    if query := _of_host("SIMSIAM_ZOO_HTTP_QUERY", _origin(url)[1]):
        request.full_url = f"{url}?{query}"
    if start or last is not None:
        request.add_header("Range", f"bytes={start}-{'' if last is None else last}")
        if etag:
            request.add_header("If-Range", etag)
    try:
        response = _opener().open(request, timeout=TIMEOUT)
    except HTTPError as error:
        response = error
    except _Refused as error:
        raise DataError(f"{redacted(url)} redirects {error}, which is refused") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        host = "/".join(url.split("/")[:3])
        raise Unavailable(f"no connection to {host} ({_reason(error)})") from None
    try:
        return _answer(url, response, start)
    except BaseException:
        response.close()
        raise


class _Refused(Exception):
    """A redirect that nobody should follow."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """To http(s) only, never to less safety; credentials go to the first URL's own host alone."""

    max_redirections = max_repeats = MAX_REDIRECTS

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Look where it goes before it is followed."""
        parts = urlsplit(urljoin(req.full_url, headers.get("Location") or "nowhere:"))
        downgrade = req.type == "https" and parts.scheme == "http"
        if parts.scheme not in ("http", "https") or downgrade or not parts.hostname:
            raise _Refused(f"to {redacted(parts.scheme)}:")
        if "@" in parts.netloc:
            raise _Refused("to a URL with a password")
        fp.close()  # its body is of no use, and may have no end
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The request that follows, with the credentials where the host is the same."""
        found = super().redirect_request(req, fp, code, msg, headers, newurl)
        if found is not None and _origin(newurl) == _origin(req.full_url):
            found.unredirected_hdrs.update(req.unredirected_hdrs)
        return found


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    """It takes proxies from the environment, as every other tool does."""
    return urllib.request.build_opener(_Redirects)


def _answer(url: str, response: Any, start: int) -> Answer:
    status, headers = response.status, response.headers
    length = headers.get("Content-Length") or ""
    begin, total = 0, int(length) if re.fullmatch(r"\d{1,19}", length) else None
    if status == 206:
        found = _CONTENT_RANGE.match(headers.get("Content-Range") or "")
        if found is None or int(found[1]) != start:
            raise StartOver("the server answered with another range than was asked for")
        begin, total = start, int(found[3])
    elif status == 416:
        raise StartOver("the file there is shorter than what was read of it before")
    elif 300 <= status < 400:
        raise DataError(f"{redacted(url)} redirects more than {MAX_REDIRECTS} times")
    elif status in (401, 403):
        raise Denied(f"{redacted(url)}: access is denied (status {status})", CREDENTIALS)
    elif status in (404, 410):
        raise Missing(f"it is not there (status {status})")
    elif status != 200:
        seconds = headers.get("Retry-After") or ""
        wait = float(seconds) if re.fullmatch(r"\d{1,6}", seconds) else math.nan
        raise Unavailable(f"the server answered with status {status}", wait)
    tag = headers.get("ETag") or ""
    strong = tag if re.fullmatch(r'"[\x21\x23-\x7e]{0,200}"', tag) else None
    version = (tag or headers.get("Last-Modified") or "")[:200]
    return Answer(begin, total, strong, version, _web_blocks(response), response.close)


def _web_blocks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            block = response.read1(WEB_BLOCK)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(f"the connection broke ({_reason(error)})") from None
        if not block:
            return
        yield block


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
    if not entry:
        return {}
    secret = base64.b64encode(f"{entry[0]}:{entry[2]}".encode()).decode()
    return {"Authorization": f"Basic {secret}"}


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
    """What happened, without the URL that messages may hold."""
    cause = getattr(error, "reason", error)
    return getattr(cause, "strerror", None) or type(cause).__name__


def _open_object(url: str, start: int, etag: str | None) -> Answer:
    system, path = _file_system(url)
    info = _asked(url, lambda: system.info(path))
    size, tag = int(info["size"]), f'"{_asked(url, lambda: system.ukey(path))}"'
    if start > size or etag not in (None, tag):
        start = 0

    def blocks() -> Iterator[bytes]:
        for at in range(start, size, OBJECT_BLOCK):
            end = min(at + OBJECT_BLOCK, size)
            read = functools.partial(system.cat_file, path, start=at, end=end)
            block = _asked(url, read)
            if len(block) != end - at:
                raise Unavailable(f"{len(block)} of {end - at} bytes came at {at}")
            yield block

    return Answer(start, size, tag, tag, blocks(), lambda: None)


def _file_system(url: str) -> tuple[Any, str]:
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


def _asked(url: str, call: Callable[[], Any]) -> Any:
    """What the store answers. Its own messages are not shown: they may hold signed URLs."""
    try:
        return call()
    except FileNotFoundError:
        raise Missing("it is not there") from None
    except Exception as error:  # what the stores raise is listed nowhere
        name = type(error).__name__
        if isinstance(error, PermissionError) or "Credential" in name:
            raise Denied(f"{redacted(url)}: access is denied ({name})", CREDENTIALS) from None
        raise Unavailable(f"the store failed ({name})") from None
