"""The checks as pytest runs them: one test for each component and check."""

from __future__ import annotations

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

_BROKEN: set[str] = set()  # labels of components that have failed a check on which others rest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A case for each component and check, by the options."""
    asked = metafunc.config.getoption
    _BROKEN.clear()
    cases = []
    try:
        for distribution in asked("zoo_plugin"):
            for tested in components_of(distribution, asked("zoo_spec")):
                for check in checks_of(tested.kind, fast=asked("zoo_fast")):
                    cases.append(pytest.param(tested, check, id=f"{tested.label}::{check.name}"))
    except ZooError as error:
        pytest.exit(str(error), pytest.ExitCode.USAGE_ERROR)
    metafunc.parametrize(("tested", "check"), cases)


def test_conformance(tested: ComponentUnderTest, check: ConformanceCheck) -> None:
    """Run a check. A component that fails a basic one is not asked the rest."""
    if tested.label in _BROKEN and not check.basic:
        pytest.skip(f"{tested.label} has failed a check that this one rests on")
    failed = ""
    try:
        check.on(tested)
    except Inapplicable as reason:
        pytest.skip(str(reason))
    except Broken as error:
        failed = str(error)
    if failed:  # out here, so that no other exception is shown with it
        if check.basic:
            _BROKEN.add(tested.label)
        pytest.fail(failed, pytrace=False)
