"""Files in object stores (s3, gs, hf), by fsspec; each store's package is an extra."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from simsiam_zoo.data.remote.transfer import Answer, Missing, Unavailable
from simsiam_zoo.errors import InputError

BLOCK = 8 << 20
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
    return Answer(start, size, tag, _blocks(system, path, start, size), lambda: None)


def object_size(url: str) -> int:
    """An object's size in bytes. Raises as `open_object` does."""
    system, path = _open(url)
    return int(_asked(lambda: system.info(path))["size"])


def _blocks(system: Any, path: str, start: int, size: int) -> Iterator[bytes]:
    for at in range(start, size, BLOCK):
        end = min(at + BLOCK, size)
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
