from __future__ import annotations

import functools
import threading
import tomllib
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from simsiam_zoo.data.remote import transfer
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.checkpoint import load_last

Run = Callable[..., tuple[Path, dict[str, Any]]]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url(digit_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "user-cache"))
    handler = functools.partial(Quiet, directory=str(digit_shards))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_run_on_remote_shards_is_the_run_on_local_ones(run: Run, url: str) -> None:
    near, far = run(name="near"), run({"dataset": url}, name="far")
    assert far[1]["identity"] == near[1]["identity"]
    assert far[1]["figures"] == near[1]["figures"]
    weights = [load_last(folder / "checkpoints")[0]["siamese"] for folder, _ in (near, far)]
    for key, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][key]), key
    recipe = tomllib.loads((far[0] / "recipe.toml").read_text())
    assert recipe["dataset"]["path"] == url
    assert "127.0.0.1" not in (far[0] / "lock.toml").read_text()


def test_a_validation_part_of_remote_shards_is_that_of_local_ones(run: Run, url: str) -> None:
    held: dict[str, object] = {"data.validation": 0.25, "data.window": 1}
    near, far = run(held, name="near"), run({**held, "dataset": url}, name="far")
    for key in ("identity", "figures", "evidence", "measured_on"):
        assert far[1][key] == near[1][key]
    with pytest.raises(InputError, match=r"data\.cache_gb = 1e-06 is too small"):
        run({**held, "dataset": url, "data.cache_gb": 1e-6}, "small")


def test_a_bound_that_is_too_small_and_a_lost_shard_end_the_run(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"data\.cache_gb = 1e-06 is too small"):
        run({"dataset": url, "data.cache_gb": 1e-6}, "small")
    with pytest.raises(InputError, match=r"x\.tar: it is none of the \d+ shards"):
        run({"dataset": f"{url}x.tar"}, "uncounted")
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    with pytest.raises(DataError, match="cannot be had: no connection"):
        run({"dataset": "http://127.0.0.1:9/"}, "nobody")
