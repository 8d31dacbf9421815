"""Checks as pytest items: one for each component and check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from simsiam_zoo.errors import ZooError
from simsiam_zoo.testing.checks import Broken, Check, Inapplicable, checks_of
from simsiam_zoo.testing.plugins import Subject, subjects_of


class Distribution(pytest.Collector):
    """The parent of a distribution's checks."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        """Nothing: its items are made by `items_of`."""
        return []


class ConformanceItem(pytest.Item):
    """One check of one component.

    Args:
        subject: the component.
        check: what to do with it.
        broken: the subjects that failed a check on which others rest; shared by all items.
    """

    def __init__(self, *, subject: Subject, check: Check, broken: set[str], **rest: Any) -> None:
        super().__init__(**rest)
        self.subject, self.check, self.broken = subject, check, broken

    def runtest(self) -> None:
        """Run the check. A component that fails a basic one is not asked the rest."""
        if self.subject.label in self.broken and not self.check.basic:
            pytest.skip(f"{self.subject.label} has failed a check that this one rests on")
        try:
            self.check.on(self.subject)
        except Inapplicable as reason:
            pytest.skip(str(reason))
        except Broken:
            if self.check.basic:
                self.broken.add(self.subject.label)
            raise

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """What the contract asks, in words; a traceback only where the kit itself is wrong."""
        if isinstance(excinfo.value, Broken):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, None, str]:
        """Where the item is said to be."""
        return self.subject.distribution, None, f"{self.subject.label}: {self.check.name}"


def items_of(
    session: pytest.Session, distribution: str, specs: Sequence[str], fast: bool
) -> Iterator[ConformanceItem]:
    """The checks of every component of a distribution.

    Raises:
        pytest.UsageError: the distribution has no plugin here, or a spec means nothing.
    """
    try:
        subjects = list(subjects_of(distribution, specs))
    except ZooError as error:
        raise pytest.UsageError(str(error)) from None
    parent = Distribution.from_parent(session, name=distribution, nodeid=distribution)
    broken: set[str] = set()
    for subject in subjects:
        for check in checks_of(subject.kind, fast=fast):
            yield ConformanceItem.from_parent(
                parent,
                name=f"{subject.label}::{check.name}",
                subject=subject,
                check=check,
                broken=broken,
            )
