"""What a check is: a question to a component, what the contract asks, and how to meet it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from simsiam_zoo.errors import ZooError
from simsiam_zoo.testing.plugins import Subject

_MODULES = ("light", "parts", "copies", "inputs", "around", "files", "runs")
"""Where the checks are, in the order in which they are made; imported when they are needed."""


class Broken(AssertionError):
    """A component does not do what the contract asks."""


class Inapplicable(Exception):
    """A check means nothing for this component, or needs what is not here."""


@dataclass(frozen=True)
class Check:
    """One question to the components of some kinds.

    Args:
        name: a word or two.
        kinds: whom it is asked.
        asks: what the contract asks, one sentence.
        way_out: how to meet it, one sentence.
        run: raises Broken (or anything) where the component does not do it.
        slow: it takes seconds, and `--zoo-fast` leaves it out.
        basic: others rest on it; a component that fails it is not asked the rest.
    """

    name: str
    kinds: tuple[str, ...]
    asks: str
    way_out: str
    run: Callable[[Subject], None]
    slow: bool = False
    basic: bool = False

    def on(self, subject: Subject) -> None:
        """Ask a component.

        Raises:
            Broken: it does not do what is asked; the text says what came, what the contract asks
                and how to meet it.
            Inapplicable: it cannot be asked.
        """
        try:
            self.run(subject)
        except Inapplicable:
            raise
        except Broken as error:
            raise self._told(subject, str(error)) from error
        except ZooError as error:
            raise self._told(subject, error.what) from error
        except Exception as error:  # a stranger's code may raise anything
            raise self._told(subject, f"raised {type(error).__name__}: {error}") from error

    def _told(self, subject: Subject, what: str) -> Broken:
        return Broken(
            f"{subject.label}: {what.rstrip('.')}.\n"
            f"  The contract ({self.name}): {self.asks}\n  The way out: {self.way_out}"
        )


CHECKS: list[Check] = []
"""Every check, in order."""


def check(
    name: str,
    *kinds: str,
    asks: str,
    way_out: str,
    slow: bool = False,
    basic: bool = False,
) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Make a function a check; see `Check`."""

    def register(run: Callable[[Subject], None]) -> Callable[[Subject], None]:
        CHECKS.append(Check(name, kinds, asks, way_out, run, slow, basic))
        return run

    return register


def checks_of(kind: str, fast: bool = False) -> list[Check]:
    """The checks that a component of this kind is to pass."""
    for module in _MODULES:
        importlib.import_module(f"simsiam_zoo.testing.{module}")
    return [each for each in CHECKS if kind in each.kinds and not (fast and each.slow)]


def expect(true: object, otherwise: str) -> None:
    """Raise Broken with the text `otherwise` unless `true`."""
    if not true:
        raise Broken(otherwise)
