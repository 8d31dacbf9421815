from __future__ import annotations

import json
from pathlib import Path

import pytest

from simsiam_zoo.data.remote.urls import check_url, expand, is_remote, redacted
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("http://host:8000/a/train-{0..3}.tar", None),
        ("HTTPS://host/a.tar", "https://host/a.tar"),
        ("http://[::1]:8000/a.tar", None),
        ("s3://bucket/key.tar", None),
        ("s3://bucket/é.tar", None),
        ("gs://bucket/folder/", None),
        ("hf://datasets/user/name@main/train-0.tar", None),
    ],
)
def test_allowed_urls(url: str, same: str | None) -> None:
    assert check_url(url) == (same or url)
    assert is_remote(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///etc/passwd", "scheme 'file' is refused"),
        ("ftp://host/a.tar", "scheme 'ftp' is refused"),
        ("memory://a.tar", "scheme 'memory' is refused"),
        ("simplecache::https://host/a.tar", "scheme 'simplecache' is refused"),
        ("https://host/a.zip::file:///etc/passwd", "chained"),
        ("zip://*::https://host/a.zip", "scheme 'zip' is refused"),
        ("https:host/a.tar", "is no URL"),
        ("https:///a.tar", "is no URL"),
        ("http://host:port/a.tar", "is no URL"),
        ("http://h{a,b}/a.tar", "is no URL"),
        ("http://host/a b.tar", "holds characters"),
        ("http://host/a\x1b[2J.tar", "holds characters"),
        ("http://host/é.tar", "such letters escaped"),
        ("http://host/*.tar", "not searched"),
        ("http://host/" + "a" * 5000, "too long"),
        ("pipe:curl http://host", "commands and pipes are never run"),
        (" pipe:cat x", "commands and pipes are never run"),
        ("-", "commands and pipes are never run"),
        ("", "commands and pipes are never run"),
    ],
)
def test_refused_urls(url: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        is_remote(url)
    assert str(caught.value).isprintable() or "\x1b" not in str(caught.value)


SECRETS = [
    "https://user:hunter2@host/a.tar",
    "https://hunter2@host/a.tar",
    "https://user:hunter2/more@host/a.tar",
    "https://user:hunter2?x@host/a.tar",
    "https://user:hunter2#x@host/a.tar",
    "https://user:p@hunter2@host/a.tar",
    "https:/user:hunter2@host/a.tar",
    "https:user:hunter2@host/a.tar",
    "https://host/a.tar?token=hunter2",
    "https://host/a.tar?mail=me@hunter2",
    "https://host/a.tar#hunter2",
    "http://user:hunter2@[::1]/a.tar",
    "s3://key:hunter2@bucket/a.tar",
    "hf://hunter2@datasets/user/name/a.tar",
    "hf://datasets/user/name/a.tar?token=hunter2",
    "ftp://user:hunter2@host/a.tar",
    "x::https://user:hunter2@host/a.tar?hunter2",
    "pipe:curl -H 'Authorization: hunter2' http://host",
]


@pytest.mark.parametrize("url", SECRETS)
def test_secrets_are_refused_and_never_repeated(url: str) -> None:
    with pytest.raises(InputError) as caught:
        open_shards(url)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)
    if not url.startswith("pipe:"):
        assert "hunter2" not in redacted(url)


@pytest.mark.parametrize("url", [u for u in SECRETS if u[:4] in ("http", "hf:/", "s3:/", "ftp:")])
def test_no_recipe_holds_a_secret(url: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(f"dataset = {json.dumps(url)}\n")
    for arguments in (
        (None, file),
        (None, None, {"dataset.name": "shards", "dataset.path": url}),
        (None, None, {"dataset.name": "shards", "dataset.path": "x", "dataset.test": url}),
    ):
        with pytest.raises(InputError) as caught:
            Recipe.make(*arguments)
        assert "hunter2" not in str(caught.value)


def test_braces_are_spelt_out_and_bounded() -> None:
    assert expand("http://h/{a,b}-{08..10}.tar") == [
        f"http://h/{letter}-{n}.tar" for letter in "ab" for n in ("08", "09", "10")
    ]
    assert expand("plain") == ["plain"]
    for pattern, words in [
        ("x{0..99999999999}{0..99999999999}", "more than 1,000,000"),
        ("x" + "{a,b}" * 500, "more than 8 pairs"),
        ("x{3..1}", "names no shards"),
        ("x{{0..1}}", "do not match"),
        ("x{0..1", "do not match"),
    ]:
        with pytest.raises(InputError, match=words):
            expand(pattern)


def test_a_pattern_that_names_a_shard_twice_is_refused():
    with pytest.raises(InputError, match="names a shard twice"):
        expand("a-{0,0}.tar")
