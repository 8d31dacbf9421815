"""From a study's folder to its results and its report, in that folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simsiam_zoo.studies.report import write_report
from simsiam_zoo.studies.results import gather, write_results


def publish(folder: Path) -> dict[str, Any]:
    """Gather the results and write them and the report anew; also while arms still run.

    Raises:
        InputError: there is no study, or the folder cannot be written.
        DataError: its plan is damaged.
    """
    results = gather(folder)
    write_results(results, folder)
    write_report(results, folder)
    return results
