from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simsiam_zoo.errors import InputError
from simsiam_zoo.model.siamese import GradientPolicy
from simsiam_zoo.runtime.progress import Progress

Run = Callable[..., tuple[Path, dict[str, Any]]]
STREAM: dict[str, object] = {"data.stream": True, "data.steps_per_epoch": 5}


@pytest.fixture
def uncounted(digit_shards: Path, tmp_path: Path) -> str:
    for file in digit_shards.glob("*.tar"):
        shutil.copy(file, tmp_path / file.name)
    return f"{tmp_path}/train-{{000000..000002}}.tar"


def test_a_stream_trains_and_says_what_it_cannot(
    run: Run, uncounted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, text: said.append(text))
    folder, result = run({**STREAM, "dataset": uncounted})
    assert (result["steps"], result["figures"], result["verdict"]) == (10, [], "undetermined")
    assert result["evidence"]["effective_rank"] is None
    assert sum("reading as a stream" in line for line in said) == 1
    assert json.loads((folder / "result.json").read_text())["steps"] == 10


def test_streams_are_refused_where_they_do_not_fit(
    run: Run, uncounted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for settings, words in (
        ({"data.stream": True, "dataset": uncounted}, "steps_per_epoch must be given"),
        ({"data.steps_per_epoch": 5}, "steps_per_epoch is for streams"),
        ({**STREAM, "dataset": "digits"}, "can be read exactly"),
    ):
        with pytest.raises(InputError, match=words):
            run(settings, "refused")
    monkeypatch.setattr(GradientPolicy, "needs_ids", True)
    with pytest.raises(InputError, match="a stream has none"):
        run({**STREAM, "dataset": uncounted}, "refused")
