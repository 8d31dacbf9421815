from __future__ import annotations

import pytest

from simsiam_zoo.studies import running


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that a test plays end at once, and are asked often."""
    monkeypatch.setattr(running, "_POLL", 0.001)
