"""The run's loggers: told everything that the record is told, and able to stop nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from simsiam_zoo.catalog import Resolved
from simsiam_zoo.errors import PluginError


class Logger(Protocol):
    """The contract of a component of the kind `logger`.

    The factory takes the component's parameters and may raise PluginError, which ends the run
    before it begins: the place to look for a missing package. What the methods raise is told once
    and costs the run this logger, no more.
    """

    def start(self, folder: Path, recipe: dict[str, Any], step: int) -> None:
        """The run begins, or goes on.

        Args:
            folder: the run's folder.
            recipe: every key, as plain nested values.
            step: steps that were done before. Rows of later steps that an interrupted run has
                logged come again, and should be dropped.
        """
        ...

    def log(self, row: dict[str, Any]) -> None:
        """A row of metrics.jsonl: `step`, `epoch` and figures, all of them finite numbers."""
        ...

    def finish(self, result: dict[str, Any]) -> None:
        """The run is complete; `result` is what result.json holds."""
        ...


class Loggers:
    """Several loggers as one; one that fails is left out from then on, and `say` is told."""

    def __init__(self, chosen: Sequence[Resolved] = (), say: Callable[[str], None] = print) -> None:
        self._say = say
        self._loggers = [(each.id, _create(each)) for each in chosen]

    def tell(self, method: Literal["start", "log", "finish"], *arguments: Any) -> None:
        """Call that method of each."""
        for named in list(self._loggers):
            name, logger = named
            try:
                getattr(logger, method)(*arguments)
            except (Exception, SystemExit) as error:  # plugin code may raise anything
                self._loggers.remove(named)
                self._say(
                    f"warning: logger {name} failed and gets no more rows"
                    f" ({type(error).__name__}: {error}); the run goes on"
                )


def _create(chosen: Resolved) -> Any:
    logger = chosen.create()
    missing = [
        name for name in ("start", "log", "finish") if not callable(getattr(logger, name, None))
    ]
    if missing:
        raise PluginError(
            f"logger {chosen.id} cannot be used: it has no {' and no '.join(missing)}"
        )
    return logger
