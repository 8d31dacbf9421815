"""The files of a report: written whole, from whatever figures there are."""

from __future__ import annotations

import copy
import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from made_results import (
    EPOCHS,
    KNN,
    STEPS_PER_EPOCH,
    five_parts,
    made_arm,
    made_run,
    made_study,
    write_metrics,
)

from simsiam_zoo.errors import InputError
from simsiam_zoo.metrics import LOSS, STD, TOP1
from simsiam_zoo.report.content import notes
from simsiam_zoo.report.study import read_results
from simsiam_zoo.report.study_charts import (
    curve_charts,
    dot_plot,
    legend,
    read_curves,
    rows_by_step,
    thinned,
)
from simsiam_zoo.report.write import write_study_report
from simsiam_zoo.studies.results import write_results


def test_all_files_are_written_and_nothing_else_is_left(tmp_path):
    results = five_parts(2)
    write_metrics(results, tmp_path)
    written = write_study_report(results, tmp_path)
    names = {"report.html", "report.md", "results.csv"}
    plots = {"plots/top1.svg", "plots/figure2.svg", "plots/curves.svg"}
    assert {str(path.relative_to(tmp_path)) for path in written} == names | plots
    there = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert {name for name in there if not name.startswith("jobs/")} == names | plots
    for path in written:
        if path.suffix == ".svg":
            root = ElementTree.parse(path).getroot()
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert float(root.get("width")) <= 1000  # its text is read where a page is 880 px wide
            assert "var(" not in path.read_text("utf-8")  # many viewers know no variables


def test_a_plot_that_has_nothing_any_more_is_removed(tmp_path):
    results = five_parts(1)
    results["arms"] = results["arms"][:2]
    write_metrics(results, tmp_path, epochs=1)
    write_study_report(results, tmp_path)
    assert (tmp_path / "plots" / "figure2.svg").exists()
    del results["arms"][1]
    written = write_study_report(results, tmp_path)
    assert not (tmp_path / "plots" / "figure2.svg").exists()
    assert tmp_path / "plots" / "curves.svg" in written


def _without(*keys):
    def change(results):
        for arm in results["arms"]:
            for run in arm["runs"]:
                run.update(dict.fromkeys(keys))
            for key in keys:
                arm["summary"][key] = None

    return change


def _unlabelled(results):
    for arm in results["arms"]:
        arm["summary"].update(metrics={}, difference={}, verdicts={}, verdict=None)
        for run in arm["runs"]:
            run.update(metrics={}, baselines={}, verdict="undetermined")


def _waiting(results):
    _unlabelled(results)
    _without("std_sqrt_d", "effective_rank", "loss", "steps", "seconds", "reason")(results)
    for arm in results["arms"]:
        for run in arm["runs"]:
            run["state"] = "waiting"


def _all_failed(results):
    _waiting(results)
    for arm in results["arms"]:
        for run in arm["runs"]:
            run.update(state="failed", error="Traceback\n" * 9999, exit_code=-9)


def _not_finite(results):
    for arm in results["arms"]:
        arm["summary"]["metrics"][KNN]["mean"] = math.nan
        for run in arm["runs"]:
            run["metrics"][KNN]["top1"] = math.inf
            run["loss"] = math.nan


CHANGES = (_unlabelled, _waiting, _all_failed, _not_finite)


@pytest.mark.parametrize("change", [*CHANGES, _without("std_sqrt_d", "effective_rank")])
def test_missing_figures_break_nothing(tmp_path, change):
    results = five_parts(2)
    change(results)
    before = copy.deepcopy(results)
    write_metrics({"arms": []}, tmp_path)
    written = write_study_report(results, tmp_path)
    assert {path.name for path in written} >= {"report.html", "report.md", "results.csv"}
    page = (tmp_path / "report.html").read_text("utf-8")
    assert not re.search(
        r"\b(nan|inf|None)\b",
        re.sub(r"<style>.*?</style>|<script>.*?</script>", "", page, flags=re.S),
    )
    assert results == before or change is _not_finite  # NaN equals nothing


def test_any_name_is_drawn_as_the_text_that_it_is(tmp_path):
    names = ["<b>&amp;", "]]>", "x" * 300, "日本語", "a\x00b", "\ud800"]
    arms = [made_arm(name, [made_run(f"r{i}", 0, 0.8)]) for i, name in enumerate(names)]
    results = made_study(arms, title="<svg>")
    write_metrics(results, tmp_path, epochs=1)
    assert len(write_study_report(results, tmp_path)) == 5
    for name in ("top1.svg", "curves.svg"):
        drawn = "".join(ElementTree.parse(tmp_path / "plots" / name).getroot().itertext())
        assert all(label in drawn for label in ("<b>&amp;", "]]>", "xxx…", "日本語", "a\ufffdb"))


def test_a_folder_that_cannot_be_written_is_a_users_error(tmp_path):
    (tmp_path / "results.json").mkdir()
    with pytest.raises(InputError, match=r"results\.json cannot be written"):
        write_results({}, tmp_path)
    (tmp_path / "report.md").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_study_report(five_parts(1), tmp_path)


def test_curves_are_read_against_epochs_and_their_mean_is_the_seeds_mean(tmp_path):
    results = made_study([made_arm("base", [made_run("base", s, 0.9) for s in range(3)])])
    write_metrics(results, tmp_path)
    curves = read_curves(read_results(results), tmp_path)
    *seeds, mean = curves[TOP1.key]
    assert [curve.seed for curve in seeds] == [0, 1, 2]
    assert [epoch for epoch, _ in mean.points] == list(range(1, EPOCHS + 1))
    values = np.array([[value for _, value in curve.points] for curve in seeds])
    np.testing.assert_allclose([value for _, value in mean.points], values.mean(axis=0))
    assert [curve.points[-1][0] for curve in curves[LOSS.key]] == [
        10 * (EPOCHS * STEPS_PER_EPOCH // 10) / STEPS_PER_EPOCH
    ] * 4
    assert curves[STD.key][0].points[0][0] == pytest.approx(1 / STEPS_PER_EPOCH)


def test_a_run_that_is_being_written_is_read_up_to_its_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": 5, "epoch": 0, "loss": -0.1}, {"step": 21, "epoch": 1, "top1 knn x": 0.5}]
    odd = '[1]\n{"epoch": 1}\n{"step": "x"}\n{"step": 1e999}\n{"step": ' + "9" * 400 + "}\n"
    torn = '{"step": 30, "lo'
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + odd + torn)
    assert rows_by_step(path) == rows
    assert rows_by_step(tmp_path / "none.jsonl") == []


def test_a_column_with_half_a_character_in_its_name_can_be_written(tmp_path):
    results = made_study([made_arm("base", [made_run("base", 0, 0.9)])])
    folder = tmp_path / results["arms"][0]["runs"][0]["folder"]
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 1, "epoch": 0, "top1 knn \\ud800 $": 0.5}\n')
    write_study_report(results, tmp_path)
    assert "knn \ufffd $" in (tmp_path / "report.html").read_text("utf-8")


def test_no_metrics_are_read_from_outside_of_the_study(tmp_path):
    results = made_study([made_arm("base", [made_run("base", 0, 0.9)])])
    study = tmp_path / "study"
    study.mkdir()
    results["arms"][0]["runs"][0]["folder"] = "../elsewhere"
    write_metrics(results, study)
    assert (tmp_path / "elsewhere" / "metrics.jsonl").exists()
    assert not any(read_curves(read_results(results), study).values())


def test_many_long_curves_are_thinned_and_keep_their_peaks(tmp_path):
    arms = [made_arm(f"a{i}", [made_run(f"a{i}", s, 0.9) for s in range(5)]) for i in range(4)]
    results = made_study(arms)
    write_metrics(results, tmp_path)
    curves = read_curves(read_results(results), tmp_path)[LOSS.key] * 30
    few = thinned(curves)
    assert sum(map(len, few)) <= 35_000 < sum(len(curve.points) for curve in curves)
    for curve, points in zip(curves[:20], few, strict=False):
        values = [value for _, value in curve.points]
        kept = [value for _, value in points]
        assert (min(kept), max(kept)) == (min(values), max(values))
        assert (points[0], points[-1]) == (curve.points[0], curve.points[-1])


def test_a_diverged_arm_does_not_flatten_the_others(tmp_path):
    arms = [made_arm(name, [made_run(name, 0, 0.9, v)]) for name, v in MIXED]
    results = made_study(arms)
    write_metrics(results, tmp_path)
    wild = tmp_path / results["arms"][1]["runs"][0]["folder"] / "metrics.jsonl"
    wild.write_text(
        '{"step": 1, "epoch": 0, "loss": 1.0}\n{"step": 62, "epoch": 1, "loss": 1e30}\n'
    )
    study = read_results(results)
    curves = read_curves(study, tmp_path)
    chart = curve_charts(study, curves, legend(study, curves))[0]
    assert chart.clipped
    assert (-1.3 < chart.y.low < -0.9, chart.y.high < 0.3) == (True, True)
    heights = [y for line in chart.lines for _, y in chart.pixels(line)]
    assert all(abs(y) < 2000 for y in heights)


MIXED = (("base", "learned"), ("wild", "diverged"))


def test_an_arm_that_diverged_says_so_where_its_figure_would_be():
    wild = [made_run("wild", seed, 0.9, "diverged", metrics={}) for seed in (0, 1)]
    some = made_arm("some", [made_run("some", 0, 0.9)])
    some["summary"] |= {"done": 2, "verdicts": {"learned": 1, "diverged": 1}}
    arms = [made_arm("base", [made_run("base", 0, 0.9)]), made_arm("wild", wild), some]
    study = read_results(made_study(arms))
    assert dot_plot(study, KNN).rows[1].text == "diverged"
    (note,) = notes(study)
    assert note[0] == "“some”"
    assert "the seeds that did not diverge" in note[1]
