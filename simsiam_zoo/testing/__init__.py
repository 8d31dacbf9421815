"""The conformance kit, a pytest plugin: what the contract asks of a distribution's components.

    pytest -p simsiam_zoo.testing --zoo-plugin leaky-zoo

adds checks for each component that the distribution supplies, by its kind, to whatever
else is collected. A failure says what the contract asks and how to meet it. `simsiam-zoo plugin
check` runs the same without a test folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The kit's options."""
    group = parser.getgroup("simsiam-zoo", "conformance of simsiam-zoo plugins")
    what = "check every component that the distribution supplies; may be repeated"
    group.addoption("--zoo-plugin", metavar="DIST", action="append", default=[], help=what)
    group.addoption("--zoo-fast", action="store_true", help="leave out the expensive checks")
    what = "check a component with these parameters, or this member of a family: loss:mse:scale=2"
    group.addoption("--zoo-spec", metavar="KIND:SPEC", action="append", default=[], help=what)


def pytest_configure(config: pytest.Config) -> None:
    """Collect the kit behind whatever else is collected."""
    if config.getoption("zoo_plugin"):
        config.args.append(str(Path(__file__).with_name("checks.py")))
