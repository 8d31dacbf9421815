"""Write all files of a study's report, each whole or not at all.

`results.csv` has a row for each arm with each seed, to be read by a program:

| column | |
| --- | --- |
| `arm`, `label`, `part`, `is_base` | of the arm |
| `same_as` | the arm that this one equals, or `base`: its rows repeat that one's figures |
| `substitution` | JSON: recipe path to value |
| `seed`, `state`, `exit_code` | of the run |
| `verdict`, `expect`, `as_expected` | the run's; those expected of the arm; its outcome |
| `paper` | top-1 in per cent, as the paper states it |
| `top1 PROTOCOL`, `test_images PROTOCOL` | share, 0 to 1; of how many images |
| `NETWORK top1 PROTOCOL` | the same of the untrained network and of raw pixels |
| `std_sqrt_d`, `effective_rank`, `loss` | of the embeddings at the end; of the last steps |
| `steps`, `seconds`, `identity`, `folder` | of the run |
| `reason`, `error` | what decided the verdict; how the run failed |

Empty where nothing was measured. Text that a spreadsheet would take for a formula (it begins with
`=`, `+`, `-`, `@`, and is no number) is preceded by an apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from simsiam_zoo.errors import InputError
from simsiam_zoo.report.study import ArmRun, Measured, ReportArm, StudyView, read_results
from simsiam_zoo.report.study_charts import PLOTS, plot_files, read_curves
from simsiam_zoo.report.text import line
from simsiam_zoo.runtime.folders import atomic_write_text
from simsiam_zoo.studies.results import collect_results, write_results

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def publish(folder: Path) -> dict[str, Any]:
    """Gather a study's results and write them and the report anew; also while arms still run.

    Raises:
        InputError: there is no study, or the folder cannot be written.
        DataError: its plan is damaged.
    """
    results = collect_results(folder)
    write_results(results, folder)
    write_study_report(results, folder)
    return results


def write_study_report(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write `report.html`, `report.md`, `results.csv` and `plots/*.svg` of a study.

    Numbers, arms or runs that are missing are left out or named: it works while arms still run. A
    plot of an earlier report that has nothing now is removed.

    Args:
        results: what `results.json` holds.
        folder: the study's; the runs' metrics are read below it.

    Returns:
        The files that were written.

    Raises:
        InputError: one cannot be written.
    """
    # slow to import, and needed by nobody who only runs a study
    from simsiam_zoo.report.pages import render_markdown, render_study

    study = read_results(results)
    curves = read_curves(study, folder)
    plots = plot_files(study, curves)
    texts = {
        "report.html": render_study(study, curves),
        "report.md": render_markdown(study, list(plots)),
        "results.csv": results_csv(study),
    }
    texts |= {f"plots/{name}": svg for name, svg in plots.items()}
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        for name in PLOTS.keys() - plots.keys():
            (folder / "plots" / name).unlink(missing_ok=True)
        for name, text in texts.items():
            atomic_write_text(folder / name, text)
    except OSError as error:
        raise InputError(
            f"the report in {folder} cannot be written: {error.strerror}",
            "Make room there, then say simsiam-zoo report and the folder.",
        ) from None
    return [folder / name for name in texts]


def results_csv(study: StudyView) -> str:
    """The whole file; figures are written so that they read back as the very same numbers."""
    rows = [_csv_row(study, arm, run) for arm in study.arms for run in arm.shown_runs]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([_safe(name) for name in _csv_row(study, ReportArm(), ArmRun())])
    for row in rows:
        writer.writerow([_safe(value) for value in row.values()])
    return file.getvalue()


def _csv_row(study: StudyView, arm: ReportArm, run: ArmRun) -> dict[str, Any]:
    measured: dict[str, Any] = {}
    for metric in study.metrics:
        found = run.metrics.get(metric, Measured())
        measured |= {f"top1 {metric}": found.top1, f"test_images {metric}": found.test_images}
    for network in dict.fromkeys(name for _, each in study.runs for name in each.baselines):
        shares = run.baselines.get(network, {})
        measured |= {f"{network} top1 {metric}": shares.get(metric) for metric in study.metrics}
    of_arm, ended = ("label", "part", "is_base", "same_as"), ("state", "exit_code", "verdict")
    shown = ("std_sqrt_d", "effective_rank", "loss", "steps", "seconds", "identity")
    return {
        "arm": arm.name,
        **{name: getattr(arm, name) for name in of_arm},
        "substitution": json.dumps(arm.substitution, ensure_ascii=False),
        "seed": run.seed,
        **{name: getattr(run, name) for name in ended},
        "expect": " or ".join(arm.expect),
        "as_expected": arm.as_expected,
        "paper": arm.paper,
        **measured,
        **{name: getattr(run, name) for name in shown},
        "folder": line(run.folder),
        "reason": run.reason,
        "error": run.error,
    }


def _safe(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.lstrip().startswith(_FORMULA) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
