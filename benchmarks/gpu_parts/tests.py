"""The tests that need a GPU, one case each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gpu_parts.part import Part, end_of

FILE = Path(__file__).parents[2] / "tests" / "test_gpu.py"


class Outcomes:
    """A plugin for pytest that writes each test's outcome down as soon as it is known."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called by pytest for the setup, the call and the teardown of each test."""
        name = report.nodeid.rpartition("::")[2]
        if report.failed:
            self.part.note(name, {"failed": end_of(report.longreprtext)})
        elif report.skipped:
            self.part.note(name, {"skipped": report.longrepr[2].removeprefix("Skipped: ")})
        elif report.when == "call":
            self.part.note(name, {"outcome": "passed", "seconds": round(report.duration, 1)})


def run(part: Part) -> None:
    """Run them in this process, which is the part's own."""
    if part.rehearsal:
        os.environ["SIMSIAM_ZOO_GPU_TESTS"] = "cpu"
    options = ["-m", "gpu", "-p", "no:cacheprovider"]
    code = pytest.main([str(FILE), *options], plugins=[Outcomes(part)])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {code!r}")
