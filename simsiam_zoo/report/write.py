"""Write all files of a study's report, each whole or not at all.

`results.csv` has a row for each arm with each seed, to be read by a program; docs/studies.md says
what its columns are. Text that a spreadsheet would take for a formula (it begins with `=`, `+`,
`-`, `@`, and is no number) is preceded by an apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from simsiam_zoo.charts.drawing import environment, inline_chart, panels
from simsiam_zoo.charts.lines import COLORS, DASHES
from simsiam_zoo.errors import InputError
from simsiam_zoo.report import study_charts
from simsiam_zoo.report.content import content
from simsiam_zoo.report.pages import PACKAGE, escape, fenced, render_offline
from simsiam_zoo.report.study import ArmRun, ReportArm, StudyView, read_results
from simsiam_zoo.report.tuned import sensitivity
from simsiam_zoo.runtime.folders import atomic_write_text
from simsiam_zoo.studies.results import collect_results, write_results
from simsiam_zoo.studies.statistics import POINTS

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def publish(folder: Path, reload: int = 0) -> dict[str, Any]:
    """Gather a study's results and write them and the report anew; also while arms still run.

    `reload`: seconds after which a browser loads the page again; 0: it does not.
    InputError: there is no study, or the folder cannot be written. DataError: its plan is damaged.
    """
    results = collect_results(folder)
    write_results(results, folder)
    write_study_report(results, folder, reload)
    return results


def write_study_report(results: dict[str, Any], folder: Path, reload: int = 0) -> list[Path]:
    """Write `report.html`, `report.md`, `results.csv` and `plots/*.svg` of a study; return them.

    `results` are what `collect_results` gave; the runs' metrics are read below the study's folder.
    A plot of an earlier report that has nothing now is removed. InputError: one cannot be written.
    """
    study = read_results(results)
    curves = study_charts.read_curves(study, folder)
    plots = study_charts.plot_files(study, curves)
    texts = {
        "report.html": render_study(study, curves, reload),
        "report.md": render_markdown(study, list(plots)),
        "results.csv": results_csv(study),
    }
    texts |= {f"plots/{name}": svg for name, svg in plots.items()}
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        for name in study_charts.PLOTS.keys() - plots.keys():
            (folder / "plots" / name).unlink(missing_ok=True)
        for name, text in texts.items():
            atomic_write_text(folder / name, text)
    except OSError as error:
        raise InputError(
            f"the report in {folder} cannot be written: {error.strerror}",
            "Make room there, then say simsiam-zoo report and the folder.",
        ) from None
    return [folder / name for name in texts]


def render_study(study: StudyView, curves: study_charts.Curves, reload: int = 0) -> str:
    """The page of a study, with the curves of its runs."""
    keys, pair = study_charts.legend(study, curves), study_charts.figure_2(study, curves)
    return render_offline(
        "study",
        **content(study),
        plots=[study_charts.dot_plot(study, metric) for metric in study.metrics],
        panels=panels(study_charts.curve_charts(study, curves, keys), "c"),
        keys=keys,
        pair=panels(study_charts.curve_charts(study, curves, pair), "p"),
        tuning=(tuning := sensitivity(study)) and inline_chart(tuning, "t"),
        tuning_chart=tuning,
        pair_keys=pair,
        palette=COLORS * DASHES,
        reload=reload,
    )


def render_markdown(study: StudyView, plots: list[str]) -> str:
    """`report.md`: the report in GitHub-flavoured Markdown, beside the files `plots/*`."""
    engine = environment(PACKAGE, autoescape=False)
    engine.filters |= {"md": escape, "fenced": fenced}
    shown = {name: what for name, what in study_charts.PLOTS.items() if name in plots}
    template = engine.get_template("study.md")
    return template.render(**content(study), plot_files=shown).rstrip("\n") + "\n"


def results_csv(study: StudyView) -> str:
    """The whole file; figures are written so that they read back as the very same numbers."""
    rows = [_csv_row(study, arm, run) for arm in study.arms for run in arm.shown_runs]
    for arm in study.arms:
        for each in arm.candidates:
            rows += [_csv_row(study, arm, run, each.values) for run in each.runs]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([_safe(name) for name in _csv_row(study, ReportArm(), ArmRun())])
    writer.writerows([_safe(value) for value in row.values()] for row in rows)
    return file.getvalue()


def _csv_row(
    study: StudyView, arm: ReportArm, run: ArmRun, tried: dict[str, str] | None = None
) -> dict[str, Any]:
    """A run of an arm, or of a candidate with the values that were `tried` for it."""
    measured: dict[str, Any] = {}
    for metric in study.metrics:
        found = run.metrics.get(metric)
        measured[f"top1 {metric}"] = None if found is None else found.top1
        measured[f"test_images {metric}"] = None if found is None else found.test_images
        gap = arm.difference.get(metric)
        told = {} if gap is None else gap.model_dump()
        measured[f"difference {metric}"] = told.get("mean")
        for name in ("low", "high", "holm_p", "detectable"):
            measured[f"{name} {metric}"] = told.get(name)
        needed = told.get("seeds_for") or {}
        measured |= {f"seeds_for {n} {metric}": needed.get(str(n)) for n in POINTS}
    for network in dict.fromkeys(name for _, each in study.runs for name in each.baselines):
        shares = run.baselines.get(network, {})
        measured |= {f"{network} top1 {metric}": shares.get(metric) for metric in study.metrics}
    of_arm, ended = ("label", "part", "is_base", "same_as"), ("state", "exit_code", "verdict")
    shown = ("std_sqrt_d", "effective_rank", "loss", "steps", "seconds", "identity", "folder")
    return {
        "arm": arm.name,
        **{name: getattr(arm, name) for name in of_arm},
        "substitution": json.dumps(arm.substitution, ensure_ascii=False),
        "candidate": json.dumps(tried, ensure_ascii=False) if tried else None,
        "seed": run.seed,
        **{name: getattr(run, name) for name in ended},
        "expect": " or ".join(arm.expect or ()) if tried is None else "",
        "as_expected": arm.as_expected if tried is None else None,
        "paper": arm.paper,
        **measured,
        **{name: getattr(run, name) for name in (*shown, "reason", "error")},
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
