"""The conformance kit, a pytest plugin: what the contract asks of a distribution's components.

    pytest -p simsiam_zoo.testing --zoo-plugin leaky-zoo

adds checks for each component that the distribution supplies, by its kind, to whatever else is
collected. A failure says what the contract asks and how to meet it. `simsiam-zoo plugin check`
runs the same without a test folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import pytest

# pytest's own marker; without its import, packages are written where it is not installed
_hookimpl = pluggy.HookimplMarker("pytest")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The kit's options."""
    group = parser.getgroup("simsiam-zoo", "conformance of simsiam-zoo plugins")
    group.addoption(
        "--zoo-plugin",
        metavar="DIST",
        action="append",
        default=[],
        help="check every component that the distribution supplies; may be repeated",
    )
    group.addoption("--zoo-fast", action="store_true", help="leave out the expensive checks")
    group.addoption(
        "--zoo-spec",
        metavar="KIND:SPEC",
        action="append",
        default=[],
        help="check a component with these parameters, or this member of a family:"
        " launcher:slurm:cluster=local",
    )


@_hookimpl(trylast=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[Any]
) -> None:
    """Add the checks behind the tests that were found, to which alone -k and -m apply."""
    from simsiam_zoo.testing.items import items_of

    for distribution in config.getoption("zoo_plugin"):
        specs = config.getoption("zoo_spec")
        items += items_of(session, distribution, specs, fast=config.getoption("zoo_fast"))
