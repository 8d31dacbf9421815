"""How far a command is, as a pipe and a terminal show it."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from simsiam_zoo.metrics import Latest
from simsiam_zoo.runtime import progress
from simsiam_zoo.runtime.progress import LiveProgress, PlainProgress, Progress, open_progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_pipe_gets_a_whole_line_now_and_then(clock: list[float]) -> None:
    stream = io.StringIO()
    shown = PlainProgress(stream)
    shown.begin("images", 5000)
    for done in range(0, 5000, 100):  # one second each
        shown.advance(done)
        clock[0] += 1
    shown.end()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "images: 200 of 5,000  48 s left"  # after two seconds, then every ten
    assert lines[-1] == "images: 4,200 of 5,000  8 s left"
    assert len(lines) == 5


def test_a_training_shows_its_epoch_and_its_newest_figures(clock: list[float]) -> None:
    stream = io.StringIO()
    latest, shown = Latest(), PlainProgress(stream)
    shown.begin("training", 100, 40, epochs=10)
    clock[0] += 60  # the first step compiles: that is not its speed
    shown.advance(41, latest.update({"step": 41, "loss": -0.5}))
    clock[0] += 19
    top1 = {"step": 60, "top1 knn (k=20, t=0.1)": 0.913, "test_images knn (k=20, t=0.1)": 512}
    shown.advance(60, latest.update(top1))
    first, second = stream.getvalue().splitlines()
    assert first == "epoch 5/10  loss -0.500"
    assert second == "epoch 7/10  loss -0.500  knn 91.3 %  40 s left"


def test_what_is_counted_within_a_training_leaves_its_lines_as_they_were(
    clock: list[float],
) -> None:
    stream = io.StringIO()
    shown = PlainProgress(stream)
    shown.begin("training", 100, epochs=10)
    shown.advance(10)
    for _ in shown.follow(range(30), 30, "features"):
        clock[0] += 1
        if clock[0] > 120:
            break
    clock[0] += 20
    shown.advance(20)
    *_, last = stream.getvalue().splitlines()
    assert last.startswith("training: 20 of 100  epoch 3/10")


def test_a_terminal_gets_a_bar_that_goes_away(clock: list[float]) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=60, color_system=None)
    with LiveProgress(console) as shown:
        assert list(shown.follow("abc", 3, "[images]")) == ["a", "b", "c"]
        shown.begin("training", 10, epochs=1)
        shown.advance(5, "loss -0.5")
        shown.say("a line that [stays]")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "a line that [stays]" in text
    assert "[images]" in text
    assert "loss -0.5" in text


def test_a_stage_is_a_line_in_a_pipe_and_goes_away_on_a_terminal(monkeypatch) -> None:
    stream, screen = io.StringIO(), io.StringIO()
    with PlainProgress(stream) as shown, shown.stage("a map"):
        pass
    assert stream.getvalue() == "a map\n"
    console = Console(file=screen, force_terminal=True, width=60, color_system=None)
    with LiveProgress(console) as live, live.stage("a map"):
        assert list(live.follow("abc", 3, "images")) == ["a", "b", "c"]
    assert "a map" in screen.getvalue()
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    for term, kind in (("xterm", LiveProgress), ("dumb", PlainProgress)):
        monkeypatch.setenv("TERM", term)
        assert type(open_progress()) is kind


def test_nothing_is_shown_where_quiet_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with open_progress(quiet=True) as shown:
        shown.say("a line")
        assert list(shown.follow(range(3), 3, "images")) == [0, 1, 2]
    assert type(shown) is Progress
    assert capsys.readouterr() == ("", "")
    assert isinstance(open_progress(), PlainProgress)  # pytest's stderr is no terminal
