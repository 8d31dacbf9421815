"""`runs` and `compare`, as a terminal, a pipe and a browser get them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_runs import KNN, make_run

Zoo = Callable[..., subprocess.CompletedProcess[str]]

LINES = "".join(
    json.dumps({"step": step, "epoch": step // 5, "loss": -step / 10, "std_sqrt_d": 0.9}) + "\n"
    for step in range(1, 11)
)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Four runs below `runs`, of which one is of a study and one is not complete."""
    right = [True] * 70 + [False] * 30
    make_run(tmp_path / "runs" / "plain", right=right, age=4)
    none = {"predictor": {"name": "none"}}
    make_run(
        tmp_path / "runs" / "none",
        none,
        right=[False] * 40 + [True] * 60,
        verdict="collapsed",
        age=3,
    )
    job = tmp_path / "runs" / "study-with-a-long-name" / "jobs" / "base-12345678" / "seed0" / "run"
    make_run(job, {"training.seed": 7}, top1={KNN: 0.5, "logistic (C=1)": 0.6}, age=2)
    make_run(tmp_path / "runs" / "begun <b>", {"optim.lr": 3.0}, verdict=None, age=1)
    for run in ("plain", "none"):
        (tmp_path / "runs" / run / "metrics.jsonl").write_text(LINES)
    return tmp_path / "runs"


def test_the_list_fits_80_columns_and_a_pipe_gets_a_line_for_each(runs: Path, zoo: Zoo) -> None:
    head, columns, *lines, note = zoo("runs").stdout.splitlines()
    assert head == "4 runs in runs"
    assert columns.split() == ["verdict", "knn", "logistic", "age", "run", "what", "differs"]
    assert [line.split()[0] for line in lines] == ["failed", "learned", "collapsed", "learned"]
    assert "study-with-a-long-name/jobs/base-12345678/seed0  training.seed=7" in lines[1]
    assert lines[2].endswith("predictor=none")
    assert note == "  top-1 in per cent on test images"
    text = zoo("runs", COLUMNS="80").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "study-with-a-long-name/jobs/base-12345678/seed0\n" in text


def test_the_best_is_told_with_why_and_that_test_images_chose_it(runs: Path, zoo_here: Zoo) -> None:
    text = zoo_here("runs", "--best", "knn", "--where", "verdict=collapsed").stdout
    assert text.startswith(f"Best by {KNN} of 1 run, on 100 test images of digits\n")
    assert "chosen on test images" not in text  # of one run nothing was chosen
    text = zoo_here("runs", "--best", "knn").stdout
    assert "of 3 runs, on 100 test images of digits\n  runs/plain: 70.0 %, learned" in text
    assert "next runs/none: 60.0 %, collapsed; +10.0 points (-" in text
    assert "95 %, paired by image)" in text
    assert "differs: predictor mlp (next: none)" in text
    assert "chosen on test images" in text
    (best,) = json.loads(zoo_here("runs", "--best", "knn", "--json").stdout)[:1]
    assert (best["folder"], best["measured_on"], best["runs"]) == ("runs/plain", "test", 3)
    assert best["difference"]["n"] == 100


def test_a_script_gets_every_run_with_its_figures_and_keys(runs: Path, zoo_here: Zoo) -> None:
    found = json.loads(zoo_here("runs", "--json", "--sort", "name").stdout)
    assert [each["state"] for each in found] == ["failed", "complete", "complete", "complete"]
    assert found[1]["figures"] == {KNN: 0.6}
    assert found[1]["differs"]["predictor"] == "none"
    assert zoo_here("runs", "--where", "verdict=worse").stdout.startswith("There are no such runs")
    refused = zoo_here("runs", "--best", "knn", "--out", "page.html")
    assert (refused.returncode, "no --best" in refused.stderr) == (2, True)
    assert "no folder elsewhere" in zoo_here("runs", "elsewhere").stderr


def test_listing_leaves_torch_out(runs: Path) -> None:
    code = (
        "import sys; from simsiam_zoo import cli\n"
        "for words in ['runs'], ['runs', '--best', 'knn'], ['compare', 'plain', 'none']:\n"
        "    cli.root.main(words, standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=runs.parent).returncode == 0


class Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_compare_prints_and_draws_what_differs_and_what_that_did(
    runs: Path, zoo: Zoo, zoo_here: Zoo
) -> None:
    text = zoo("compare", "plain", "runs/none", COLUMNS="80").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "A  runs/plain\n  predictor=mlp" in text
    assert "  B  60.0 %  -10.0 (-" in text
    page = Page((runs / "plain" / "compare.html").read_text())
    drawn = [attrs for tag, attrs in page.tags if tag == "polyline"]
    assert [attrs["data-name"] for attrs in drawn] == ["plain", "none"] * 2  # loss, std
    assert "McNemar" in page.text
    links = {attrs.get("src") or attrs.get("href") or "#" for _, attrs in page.tags}
    assert all(link.startswith(("#", "data:")) for link in links)  # it fetches nothing
    found = json.loads(zoo_here("compare", "plain", "none", "--json").stdout)
    assert found["keys"] == {"predictor": ["mlp", "none"]}
    for words, says in [
        (["plain"], "two or more"),
        (["plain", "plain"], "named twice"),
        (["plain", "nowhere"], "no run in nowhere"),
    ]:
        assert says in zoo_here("compare", *words).stderr


def test_the_page_of_a_list_is_kept_up_to_date_until_ctrl_c(runs: Path) -> None:
    code = (
        "import signal; from simsiam_zoo.cli import main\n"
        # pytest may itself have been started with the signal ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "main(['runs', '--watch'])"
    )
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=runs.parent, env=env, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        first = Page((runs / "runs.html").read_text())
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert b"reloads itself" in told
    assert first.tags[0] == ("html", {"lang": "en", "data-reload": "10"})
    assert "begun <b>" in first.text  # escaped: it is text and no tag
    assert b"stays as it is now" in rest
    assert process.returncode == 0
    assert "data-reload" not in Page((runs / "runs.html").read_text()).tags[0][1]
