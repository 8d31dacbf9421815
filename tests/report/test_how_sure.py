"""What the report says of differences from the base, against results made by hand."""

from __future__ import annotations

import csv
import io

import pytest
from made_results import KNN, five_parts, made_arm, made_run, made_study
from scipy.stats import ttest_rel

from simsiam_zoo.cli.ablate import print_results
from simsiam_zoo.report.content import answer
from simsiam_zoo.report.how_sure import in_one_line, sure_table
from simsiam_zoo.report.study import read_results
from simsiam_zoo.report.study_charts import read_curves
from simsiam_zoo.report.write import render_markdown, render_study, results_csv

BASE = (0.90, 0.91, 0.92, 0.93)
GAPS = {
    "far": (-0.30, -0.31, -0.29, -0.30),  # p < 0.001
    "near": (0.04, 0.02, 0.01, 0.04),  # p = 0.035, twice that as the second of three
    "open": (0.01, -0.01, 0.02, -0.01),
}


def made(gaps=GAPS):
    runs = {"base": BASE} | {
        name: [b + gap for b, gap in zip(BASE, each, strict=True)] for name, each in gaps.items()
    }
    arms = [
        made_arm(name, [made_run(name, seed, share) for seed, share in enumerate(shares)])
        for name, shares in runs.items()
    ]
    return made_study(arms)


def plain(text):
    return text.replace("\u00a0", " ").replace("−", "-")


def test_the_answer_tells_arms_apart_only_with_the_correction_and_bounds_the_others():
    told = plain(" ".join(answer(read_results(made()))))
    assert "Holm's correction over 3 arms; 95 % interval): “far” (-30.0 points" in told
    assert "but not with Holm's correction over 3 arms: “near” (+2.8 points, +0.4 to +5.1)" in told
    low = ttest_rel([0.91, 0.90, 0.94, 0.92], BASE).confidence_interval(0.95).low
    assert f"“open” (costs at most {-100 * low:.1f} points)" in told
    assert "no difference" not in told


def test_the_same_difference_with_every_seed_is_not_called_sure():
    told = plain(" ".join(answer(read_results(made({"even": (0.01,) * 4})))))
    assert "no spread shows how sure it is: “even” (+1.0 points)" in told
    assert "Different" not in told


def test_the_table_has_a_row_for_each_arm_with_a_spread():
    results = made()
    columns, rows = sure_table(read_results(results), KNN)
    titles = [column.title for column in columns]
    assert titles[-3:] == ["Seeds for 1 point", "Seeds for 2 points", "Seeds for 5 points"]
    assert [row[0].text for row in rows] == list(GAPS)
    for row, arm in zip(rows, results["arms"][1:], strict=True):
        found = arm["summary"]["difference"][KNN]
        shown = dict(zip(titles, row, strict=True))
        assert plain(shown["From base"].text) == f"{100 * found['mean']:+.1f}"
        assert float(shown["Can tell"].text) == pytest.approx(100 * found["detectable"], abs=0.05)
        assert shown["Seeds for 2 points"].text == f"{found['seeds_for']['2']:,}"
    assert [row[3].text for row in rows] == ["yes", "no", "no"]
    assert rows[0][2].text == "< 0.001"


def test_one_seed_has_none_of_this():
    study = read_results(five_parts(1))
    assert sure_table(study, KNN)[1] == []
    assert in_one_line(study).startswith("One seed: ")
    assert "How sure" not in render_markdown(study, [])
    gap = study.arms[1].difference[KNN].mean
    (told,) = [plain(each) for each in answer(study) if "with one seed" in each]
    assert f"“gradient: none” ({100 * gap:+.1f} points)" in told


def test_pages_and_the_terminal_say_it(tmp_path, capsys):
    results = made()
    study = read_results(results)
    for text in (render_markdown(study, []), render_study(study, read_curves(study, tmp_path))):
        assert "How sure" in text
        assert "Seeds for 5 points" in text
    print_results(results, tmp_path)
    (line,) = [each for each in capsys.readouterr().out.splitlines() if "How sure" in each]
    sizes = [arm["summary"]["difference"][KNN]["detectable"] for arm in results["arms"][1:]]
    ends = f"{100 * min(sizes):.1f} to {100 * max(sizes):.1f} points"
    assert line == f"  How sure: 1 of 3 arms differs (Holm); told at 80 % power: {ends}"
    assert len(line) <= 80


def test_the_csv_has_it_in_every_row_of_the_arm():
    results = made()
    rows = list(csv.DictReader(io.StringIO(results_csv(read_results(results)))))
    by_name = {arm["name"]: arm["summary"]["difference"].get(KNN) for arm in results["arms"]}
    for row in rows:
        found = by_name[row["arm"]]
        if found is None:
            assert row[f"difference {KNN}"] == row[f"seeds_for 2 {KNN}"] == ""
            continue
        for column, key in (("difference", "mean"), ("low", "low"), ("holm_p", "holm_p")):
            assert float(row[f"{column} {KNN}"]) == found[key]
        assert int(row[f"seeds_for 2 {KNN}"]) == found["seeds_for"]["2"]
