"""Write all files of a report, each whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simsiam_zoo.errors import InputError
from simsiam_zoo.report.csv_file import results_csv
from simsiam_zoo.report.reading import view
from simsiam_zoo.report.study_curves import read_curves
from simsiam_zoo.runtime.folders import atomic_write_text
from simsiam_zoo.studies.results import collect_results, write_results


def write_report(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write `report.html`, `report.md`, `results.csv` and `plots/*.png` of a study.

    Figures, arms or runs that are missing are left out or named: it works while arms still run.

    Args:
        results: what `results.json` holds.
        folder: the study's; the runs' metrics are read below it.

    Returns:
        The files that were written.

    Raises:
        InputError: one cannot be written.
    """
    # slow to import, and needed by nobody who only runs a study
    from simsiam_zoo.report.markdown import render_markdown
    from simsiam_zoo.report.plots import draw_plots
    from simsiam_zoo.report.study_page import render

    study = view(results)
    curves = read_curves(study, folder)
    try:
        plots = draw_plots(study, curves, folder / "plots")
        texts = {
            "report.md": render_markdown(study, [path.name for path in plots]),
            "results.csv": results_csv(study),
            "report.html": render(study, curves),
        }
        for name, text in texts.items():
            atomic_write_text(folder / name, text)
    except OSError as error:
        raise InputError(
            f"the report in {folder} cannot be written: {error.strerror}",
            "Make room there, then say simsiam-zoo report and the folder.",
        ) from None
    return [folder / "report.html", folder / "report.md", folder / "results.csv", *plots]


def publish(folder: Path) -> dict[str, Any]:
    """Gather a study's results and write them and the report anew; also while arms still run.

    Raises:
        InputError: there is no study, or the folder cannot be written.
        DataError: its plan is damaged.
    """
    results = collect_results(folder)
    write_results(results, folder)
    write_report(results, folder)
    return results
