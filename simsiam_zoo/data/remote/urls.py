"""URLs of remote shards: which are let in, what a pattern spells, and how one may be shown.

A URL that gets past `check_url` holds no secret: user info, queries and fragments are refused, so
that recipes, records, digests, cache names and messages have none to leak. How credentials are
given instead is `CREDENTIALS`.
"""

from __future__ import annotations

import itertools
import math
import re
from urllib.parse import unquote, urlsplit

from simsiam_zoo.errors import InputError

SCHEMES = ("http", "https", "s3", "gs", "hf")
"""What may be opened; anything else is refused before it is looked at further."""

MAX_EXPANSION = 1_000_000
"""Most shards that one pattern may name."""

CREDENTIALS = (
    "Give credentials by the environment: for http(s) ~/.netrc, SIMSIAM_ZOO_HTTP_TOKEN or"
    " SIMSIAM_ZOO_HTTP_QUERY; for s3, gs and hf as their own tools take them."
)

_MAX_LENGTH, _MAX_BRACES = 4096, 8
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]+):")  # two letters or more: C:\ is a drive
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})\Z")
_LITERAL_HOST = re.compile(r"//\[[0-9A-Fa-f:.]+\]")  # IPv6, whose `::` chains nothing


def is_url(source: str) -> bool:
    """Whether `source` looks like a URL of any scheme, allowed or not."""
    return _SCHEME.match(source) is not None or "://" in source


def is_remote(source: str) -> bool:
    """Whether `source` is an allowed URL; False for what is a path.

    Raises InputError where it is neither: a command, a pipe, another scheme, a URL with a secret.
    """
    if source.strip() in ("", "-") or source.lstrip().startswith("pipe:"):
        shown = source if len(source) < 10 else f"{source[:5]}..."  # commands may hold tokens
        raise InputError(
            f"the data source {shown!r} is refused: commands and pipes are never run",
            "Name a folder of shards, a tar, or a pattern such as train-{000000..000009}.tar.",
        )
    return is_url(source) and bool(check_url(source.strip()))


def check_url(url: str) -> str:
    """`url`, or a pattern of URLs, with its scheme in lower case.

    Raises InputError where it is of another scheme, chained, malformed, or could carry a secret.
    """
    match, shown = _SCHEME.match(url), redacted(url)
    scheme = match[1].lower() if match else ""
    if scheme not in SCHEMES:
        raise InputError(
            f"{shown}: the scheme {scheme!r} is refused",
            f"Data is read from folders and from {', '.join(f'{s}://' for s in SCHEMES)};"
            " nothing else is opened and no command is run.",
        )
    if "::" in _LITERAL_HOST.sub("//", url):
        raise InputError(f"{shown}: chained URLs are refused", "Name the shards themselves.")
    if len(url) > _MAX_LENGTH or not url.isprintable() or "\\" in url or " " in url:
        raise InputError(f"{shown}: it is too long for a URL, or holds characters that none has")
    if scheme.startswith("http") and not url.isascii():
        raise InputError(
            f"{shown}: URLs have such letters escaped", "Write é as %C3%A9, and so on."
        )
    refuse_secrets(url)
    try:
        parts = urlsplit(url)
        is_spelled = bool(parts.hostname) and parts.port is not False  # reading them may raise
    except ValueError:
        is_spelled = False
    if not is_spelled or not url[len(scheme) :].startswith("://") or "{" in parts.netloc:
        raise InputError(f"{shown} is no URL: it is spelled {scheme}://host/folder/name.tar")
    if "*" in parts.path or "[" in parts.path:
        raise InputError(
            f"{shown}: remote folders are not searched, so * and [ are refused",
            "Use braces: train-{000000..000146}.tar.",
        )
    return scheme + url[len(scheme) :]


def file_name(location: str) -> str:
    """The file's name at the end of a path or a URL; URLs of the web have it escaped."""
    name = location.rpartition("/")[2]
    return unquote(name) if location.startswith(("http://", "https://")) else name


def refuse_secrets(source: str) -> None:
    """Raise InputError where `source` is a URL with user info, a query or a fragment."""
    if is_url(source) and (found := _secrets(source)):
        raise InputError(
            f"{redacted(source)}: {found} in URLs are refused; they would be written into the"
            " run's recipe",
            CREDENTIALS,
        )


def _secrets(url: str) -> str:
    """What in a URL may be a secret, in words; an empty text for nothing."""
    scheme, _, rest = url.strip().partition(":")
    # hf://datasets/user/name@revision/... names no user.
    named = rest.lstrip("/").partition("/")[0] if scheme.lower() == "hf" else rest
    if "@" in named:
        return "user names and passwords"
    return "queries and fragments" if "?" in rest or "#" in rest else ""


def redacted(url: str) -> str:
    """A URL as it may be printed: on one line, and only its scheme where it may hold a secret."""
    text = f"{url.strip().partition(':')[0]}://..." if _secrets(url) else url.strip()
    text = f"{text[:200]}..." if len(text) > 200 else text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def expand(pattern: str, limit: int = MAX_EXPANSION) -> list[str]:
    """The names that a brace pattern spells, in its order; a pattern without braces is itself.

    Raises InputError where there are none or more than `limit`, or the braces do not match.
    """
    shown = redacted(pattern) if is_url(pattern) else pattern
    if pattern.count("{") > _MAX_BRACES:
        raise InputError(f"{shown} has more than {_MAX_BRACES} pairs of braces")
    parts = re.split(r"\{([^{}]+)\}", pattern)
    if any("{" in text or "}" in text for text in parts[::2]):
        raise InputError(f"{shown}: the braces do not match (they cannot be nested)")
    choices = []
    for inside in parts[1::2]:
        if numbers := _RANGE.match(inside):
            span = range(int(numbers[1]), int(numbers[2]) + 1)[: limit + 1]
            choices.append([f"{number:0{len(numbers[1])}d}" for number in span])
        else:
            choices.append(inside.split(","))
    total = math.prod(map(len, choices))
    if total > limit:
        raise InputError(f"{shown} names more than {limit:,} shards")
    if not total:
        raise InputError(f"{shown} names no shards: a range counts up")
    names = [
        "".join(itertools.chain(*zip(parts[::2], (*chosen, ""), strict=True)))
        for chosen in itertools.product(*choices)
    ]
    if len(set(names)) < len(names):
        raise InputError(f"{shown} names a shard twice", "Each would be read twice: spell it once.")
    return names
