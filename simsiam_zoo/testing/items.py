"""Checks as pytest items: one for each component and check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from simsiam_zoo.errors import ZooError
from simsiam_zoo.testing.checks import (
    Broken,
    ComponentUnderTest,
    ConformanceCheck,
    Inapplicable,
    checks_of,
    components_of,
)


class Distribution(pytest.Collector):
    """The parent of a distribution's checks."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        """Nothing: its items are made by `items_of`."""
        return []


class ConformanceItem(pytest.Item):
    """One check of one component.

    Args:
        broken: labels of components that have failed a basic check; shared by all items.
    """

    def __init__(
        self, *, tested: ComponentUnderTest, check: ConformanceCheck, broken: set[str], **rest: Any
    ) -> None:
        super().__init__(**rest)
        self.tested, self.check, self.broken = tested, check, broken

    def runtest(self) -> None:
        """Run the check. A component that fails a basic one is not asked the rest."""
        if self.tested.label in self.broken and not self.check.basic:
            pytest.skip(f"{self.tested.label} has failed a check that this one rests on")
        try:
            self.check.on(self.tested)
        except Inapplicable as reason:
            pytest.skip(str(reason))
        except Broken:
            if self.check.basic:
                self.broken.add(self.tested.label)
            raise

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """What the contract asks, in words; a traceback only where the kit itself is wrong."""
        if isinstance(excinfo.value, Broken):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, None, str]:
        """Where the item is said to be."""
        name = self.tested.plugin.distribution
        return name, None, f"{self.tested.label}: {self.check.name}"


def items_of(
    session: pytest.Session, distribution: str, specs: Sequence[str], fast: bool
) -> Iterator[ConformanceItem]:
    """The checks of every component of a distribution.

    Raises:
        pytest.UsageError: the distribution has no plugin here, or a spec means nothing.
    """
    try:
        components = list(components_of(distribution, specs))
    except ZooError as error:
        raise pytest.UsageError(str(error)) from None
    parent = Distribution.from_parent(session, name=distribution, nodeid=distribution)
    broken: set[str] = set()
    for tested in components:
        for check in checks_of(tested.kind, fast=fast):
            facts = {"tested": tested, "check": check, "broken": broken}
            yield ConformanceItem.from_parent(parent, name=f"{tested.label}::{check.name}", **facts)
