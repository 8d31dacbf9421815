"""What the report says in words and numbers, against the results that it was made of."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys

import pytest
from made_results import KNN, LOGISTIC, five_parts, made_arm, made_run, made_study
from markdown_it import MarkdownIt

from simsiam_zoo.cli.ablate import print_results
from simsiam_zoo.report.content import (
    STD_TITLE,
    answer,
    arm_table,
    metric_table,
    not_run,
    notes,
    progress,
    run_table,
)
from simsiam_zoo.report.pages import compact, escape, fenced, points
from simsiam_zoo.report.study import read_results
from simsiam_zoo.report.study_charts import _marks
from simsiam_zoo.report.write import render_markdown, results_csv

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "a | b \\| c \\",
    "`code` ``more`` ~~gone~~ **bold** _it_ $x^2$",
    "[link](http://example.com) ![i](http://example.com/x.svg) <http://example.com>",
    "http://example.com www.example.com @someone #1 me@example.com",
    "first\nsecond\r\n\r\n# third",
    "- item",
    "1. item",
    "&lt;b&gt; {{ 7 * 7 }} {% raw %}",
    "=cmd|'/c calc'!A1",
    "$\\frac{$",
)


def column(study, title, group=""):
    main = group in ("", study.main) and title != STD_TITLE
    columns, rows = arm_table(study) if main else metric_table(study)
    titles = [(c.title.replace("‑", "-"), c.group) for c in columns]
    place = titles.index((title, group))
    return {row[0].text: row[place] for row in rows}


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_table_has_the_numbers_of_the_results():
    results = five_parts(3)
    study = read_results(results)
    top1, gap = column(study, "Top-1, %", KNN), column(study, "From base", KNN)
    std, rank = column(study, STD_TITLE), column(study, "Effective rank")
    paper = column(study, "Paper, %")
    for arm in results["arms"]:
        summary, label = arm["summary"], arm["label"]
        knn = summary["metrics"][KNN]
        assert plain(top1[label].text) == f"{100 * knn['mean']:.1f} ± {100 * knn['std']:.1f}"
        assert top1[label].sort == knn["mean"]
        spread, directions = summary["std_sqrt_d"], summary["effective_rank"]
        assert plain(std[label].text) == f"{spread['mean']:.2f} ± {spread['std']:.2f}"
        assert plain(rank[label].text) == f"{directions['mean']:.1f} ± {directions['std']:.1f}"
        assert paper[label].sort == arm["paper"]
        if not arm["is_base"]:
            found = summary["difference"][KNN]
            assert plain(gap[label].text) == f"{100 * found['mean']:+.1f}"
            ends = f"{100 * found['low']:+.1f} to {100 * found['high']:+.1f}"
            assert plain(gap[label].note) == ends
    assert gap["base: SimSiam"].sort is None


def plain(text):
    return text.replace("\u00a0", " ").replace("−", "-")


def test_one_seed_has_no_deviation_and_no_interval():
    results = five_parts(1)
    study = read_results(results)
    assert "±" not in column(study, "Top-1, %", KNN)["gradient: none"].text
    assert column(study, "From base", KNN)["gradient: none"].note == "1 seed"
    assert not [sentence for sentence in answer(study) if "interval" in sentence]


def test_the_answer_counts_what_came_out_as_expected_and_names_what_did_not():
    told = " ".join(answer(read_results(five_parts(2))))
    assert "Of 5 arms with an expectation, 4 came out as expected and 1 did not" in told
    assert "“batch size: 512” (expected learned, found no-gain)" in told
    assert "Collapsed: “gradient: none” and “predictor: none”." in told
    assert "untrained 80.1" in plain(told)


def test_a_study_without_collapse_says_so_and_one_without_verdicts_says_nothing():
    assert "No arm collapsed or diverged." in answer(read_results(made_study([one_arm("base")])))
    waiting = made_study([made_arm("base", [waiting_run()])])
    assert answer(read_results(waiting)) == []


def one_arm(name, seeds=2, **changes):
    return made_arm(
        name, [made_run(name, seed, 0.9 + seed / 100) for seed in range(seeds)], **changes
    )


def waiting_run(seed=0, state="waiting"):
    empty = {"metrics": {}, "baselines": {}, "verdict": None, "reason": None, "exit_code": None}
    none = dict.fromkeys(("std_sqrt_d", "effective_rank", "loss", "steps", "seconds", "identity"))
    return made_run("x", seed, 0.5, **{"state": state, **empty, **none})


def test_a_mixed_arm_tells_how_many_seeds_have_which_verdict():
    runs = [made_run("m", 0, 0.9), made_run("m", 1, 0.5, "collapsed"), made_run("m", 2, 0.9)]
    study = read_results(made_study([one_arm("base", 3), made_arm("m", runs)]))
    cell = column(study, "Verdict")["m"]
    assert (cell.text, cell.verdict) == ("2 learned, 1 collapsed", "mixed")
    assert "Collapsed: “m” (1 of 3 seeds)." in answer(study)


def test_what_is_not_done_is_said_until_every_run_has_ended():
    runs = [made_run("a", 0, 0.9), waiting_run(1, "running"), waiting_run(2)]
    text = progress(read_results(made_study([made_arm("a", runs)])))
    assert text is not None
    assert "1 of 3 runs is done" in text
    assert "1 running, 1 waiting" in text
    failed = waiting_run(1, "failed") | {"error": "MemoryError", "exit_code": 1}
    ended = read_results(made_study([made_arm("a", [made_run("a", 0, 0.9), failed])]))
    assert progress(ended) is None
    assert [s for s in answer(ended) if s.startswith("Failed: “a”")]


def test_reasons_are_given_once_and_failed_runs_not_twice():
    failed = waiting_run(1, "failed") | {"error": "MemoryError"}
    arms = [one_arm("a", label="A"), made_arm("b", [waiting_run(0), failed], label="B")]
    skipped = [
        {"arm": "a", "seed": None, "why": "too small"},
        {"arm": "b", "seed": 0, "why": "too small"},
        {"arm": "b", "seed": 1, "why": "MemoryError"},
    ]
    study = read_results(made_study(arms, not_run=skipped))
    assert not_run(study) == [("“A”, “B” seed 0", "too small")]
    arms[0]["warnings"] = arms[1]["warnings"] = ["7 steps an epoch"]
    told = read_results(
        made_study(arms, notes=["A: 7 steps an epoch", "B: 7 steps an epoch", "1 seed"])
    )
    assert notes(told) == [("", "1 seed"), ("“A” and “B”", "7 steps an epoch")]


def test_an_arm_that_equals_another_has_its_figures_and_no_runs_of_its_own():
    same = made_arm("batch_size-64", [], same_as="base", label="batch 64")
    study = read_results(made_study([one_arm("base"), same]))
    top1 = column(study, "Top-1, %", KNN)
    assert top1["batch 64"] == top1["base"]
    assert column(study, "Seeds")["batch 64"].note == "same as base"
    assert len(run_table(study)[1]) == 2
    rows = read_csv(results_csv(study))
    assert [(row["arm"], row["seed"], row["same_as"]) for row in rows] == [
        ("base", "0", ""),
        ("base", "1", ""),
        ("batch_size-64", "0", "base"),
        ("batch_size-64", "1", "base"),
    ]


def test_the_csv_reads_back_as_the_very_same_numbers():
    results = five_parts(3)
    results["arms"][1]["runs"][1] = waiting_run(1)
    rows = read_csv(results_csv(read_results(results)))
    runs = [(arm, run) for arm in results["arms"] for run in arm["runs"]]
    assert len(rows) == len(runs)
    for row, (arm, run) in zip(rows, runs, strict=True):
        assert (row["arm"], int(row["seed"]), row["state"]) == (
            arm["name"],
            run["seed"],
            run["state"],
        )
        assert json.loads(row["substitution"]) == {
            key: str(value) for key, value in arm["substitution"].items()
        }
        for metric in (KNN, LOGISTIC):
            stated = run["metrics"].get(metric, {}).get("top1")
            assert number(row[f"top1 {metric}"]) == stated
            untrained = run["baselines"].get("untrained", {}).get(metric)
            assert number(row[f"untrained top1 {metric}"]) == untrained
        for key in ("std_sqrt_d", "effective_rank", "loss", "steps", "seconds"):
            assert number(row[key]) == run[key]


def number(text):
    return float(text) if text else None


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", " =1", "＝1"])
def test_no_cell_of_the_csv_is_a_formula(text):
    study = made_study([one_arm(text, label=text)])
    study["arms"][0]["runs"][0]["error"] = text
    (row, _) = read_csv(results_csv(read_results(study)))
    assert row["arm"] == row["label"] == f"'{text.strip()}"
    assert row["error"].startswith("'")


def test_a_negative_number_in_the_csv_stays_a_number():
    study = made_study([one_arm("base", label="-1.5")])
    (row, _) = read_csv(results_csv(read_results(study)))
    assert (row["label"], float(row["loss"])) == ("-1.5", -0.94)


def test_quotes_commas_and_lines_survive_the_csv():
    error = 'first, "second"\nthird'
    study = made_study([one_arm("base", label='a, "b"')])
    study["arms"][0]["runs"][0]["error"] = error
    (row, _) = read_csv(results_csv(read_results(study)))
    assert (row["label"], row["error"]) == ('a, "b"', error)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text_in_markdown(text):
    """Parsed by another program; `linkify` makes links of bare addresses, as GitHub does."""
    expected = " ".join(text.split())
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    block = (
        f"# {escape(text)}\n\n- {escape(text)}\n\n| a | b |\n| --- | --- |\n| {escape(text)} | x |"
    )
    kinds, texts = [], []
    for token in parser.parse(block):
        kinds.append(token.type)
        if token.type == "inline":
            assert all(child.type in ("text", "text_special") for child in token.children)
            texts.append("".join(child.content for child in token.children))
    assert texts == [expected, expected, "a", "b", expected, "x"]
    assert "html_block" not in kinds
    assert "fence" not in kinds
    assert kinds.count("bullet_list_open") == 1
    assert not re.search(r"https?://|www\.|@|\$", escape(text))


def test_a_block_of_code_holds_its_own_fences():
    text = "```\n</details>\n````\n# no heading"
    (token,) = MarkdownIt("commonmark").parse(fenced(text))
    assert (token.type, token.content) == ("fence", f"{text}\n")


def test_the_markdown_holds_every_arm_and_refers_to_the_plots_that_there_are():
    results = five_parts(2)
    text = render_markdown(read_results(results), ["top1.svg", "curves.svg"])
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    html = parser.render(text)
    for arm in results["arms"]:
        assert f"<td>{arm['label']}" in html
        knn = arm["summary"]["metrics"][KNN]
        assert f"{100 * knn['mean']:.1f} ± {100 * knn['std']:.1f}" in plain(html)
    assert re.findall(r'src="([^"]+)"', html) == ["plots/top1.svg", "plots/curves.svg"]
    assert "batch 512 on 4,000 images: 7 steps an epoch" in html


def test_importing_the_report_does_not_bring_torch():
    code = "import sys, simsiam_zoo.report.write; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_terminal_has_the_tables_figures_in_fewer_columns(tmp_path, capsys) -> None:
    results = five_parts()
    (tmp_path / "report.md").write_text("")
    print_results(results, tmp_path)
    text = capsys.readouterr().out
    head, base, *_ = [line.split() for line in text.splitlines() if line.startswith("  ")]
    assert head[:2] == ["Arm", "Verdict"]
    assert "Substituted" not in text
    mean = results["arms"][0]["summary"]["metrics"][KNN]["mean"]
    assert f"{100 * mean:.1f}" in " ".join(base)
    assert all(arm["label"] in text for arm in results["arms"])
    assert "report.md" in text
    assert "report.html" not in text


def test_the_terminal_says_what_failed_and_what_its_marks_are(tmp_path, capsys) -> None:
    results = five_parts()
    for run in results["arms"][3]["runs"]:
        run |= {"state": "failed", "error": "not enough memory\n  Use a smaller batch."}
    results["stale"] = ["jobs/old-1", "jobs/old-2"]
    print_results(results, tmp_path)
    text = capsys.readouterr().out
    assert "failed: “projector: none” seeds 0 and 1: not enough memory\n" in text
    assert "✗: another verdict was expected" in text
    assert "run anew: jobs/old-1 jobs/old-2" in text


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_terminal_shows_what_an_arm_costs_within_its_width(
    seeds, tmp_path, capsys, monkeypatch
) -> None:
    results = five_parts(seeds)
    arm = results["arms"][1]
    results["arms"][2]["label"] = (
        "a label that alone is nearly as wide as the terminal, 70 characters"
    )
    gap = arm["summary"]["difference"][KNN]
    cost = points(gap["mean"])
    if seeds > 1:
        cost += f" ({points(gap['low'])} to {points(gap['high'])})"
    for width in (80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        print_results(results, tmp_path)
        lines = capsys.readouterr().out.splitlines()
        table = [line for line in lines if line.startswith("  ")][: 1 + len(results["arms"])]
        assert max(map(len, table)) <= width
        (shown,) = (line for line in table if line.strip().startswith(arm["label"]))
        assert cost in shown
        assert arm["summary"]["verdict"] in shown
        narrow = [line for line in lines if "no room here for" in line]
        assert [line.strip()[:22] for line in narrow] == ["no room here for Paper"] * (width == 80)


def test_a_studys_curves_mark_the_epochs_at_which_arms_change():
    changes = [{"epoch": 10, "freeze": ["predictor"], "gradient": {"name": "none"}}]
    results = five_parts(1)
    arm = results["arms"][1]
    arm["differences"] = [["change", None, changes]]
    study = read_results(results)
    number = study.arms[1].number
    assert _marks(study, {0, number}, 20.0) == [(10.0, arm["label"])]
    assert _marks(study, {0}, 20.0) == _marks(study, {number}, 10.0) == []
    assert compact(changes) == "from epoch 10 on: freeze predictor, gradient none"
    assert compact([{"epoch": 0.5, "loss": "mse"}]) == "from 50 % of the run on: loss mse"
