"""The report of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_report(results: dict[str, Any], folder: Path) -> list[Path]:
    """Nothing yet."""
    return []
