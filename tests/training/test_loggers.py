"""Loggers: what they write, read back by other means, and that none of them stops a run."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from simsiam_zoo.catalog import Catalog, Component, Param, Plugin
from simsiam_zoo.components.loggers import CsvLogger
from simsiam_zoo.errors import PluginError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.run_folder import Loggers, read_metrics
from simsiam_zoo.training.train import train

Run = Callable[..., tuple[Path, dict[str, Any]]]
BOTH: dict[str, object] = {"logging.loggers": ["tensorboard", "csv:path=tables/run.csv"]}


class Cut(Exception):
    pass


def assert_logged(folder: Path, result: dict[str, Any]) -> None:
    """Both logs hold the rows of metrics.jsonl, each once."""
    rows = read_metrics(folder)
    names = {name for row in rows for name in row} - {"step", "epoch"}

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert (
        set(events.Tags()["scalars"]) == {name.replace(" ", "_") for name in names}
        or set(events.Tags()["scalars"]) == names
    )
    for name in ("loss", "effective_rank", "gradient_norm"):
        expected = [(row["step"], row[name]) for row in rows if name in row]
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in expected]
        values = [value for _, value in expected]
        assert [value for _, value in found] == pytest.approx(values, rel=1e-6)
    (verdict,) = events.Tensors("verdict/text_summary")
    assert result["verdict"] in verdict.tensor_proto.string_val[0].decode()
    (recipe,) = events.Tensors("recipe/text_summary")
    assert "weight_decay" in recipe.tensor_proto.string_val[0].decode()

    with (folder / "tables" / "run.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in line.items() if v} for line in table] == rows


def test_tensorboard_and_csv_hold_the_rows_of_the_metrics(run: Run) -> None:
    assert_logged(*run({**BOTH, "evaluation.online_epochs": 1}))


def test_a_run_that_is_interrupted_and_resumed_logs_each_row_once(
    tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = tiny({**BOTH, "evaluation.online_epochs": 1, "training.checkpoint_steps": 4})

    class Cutting(Progress):
        def advance(self, done: int, text: str = "") -> None:
            if done == 7:  # rows 5, 6 and 7 are logged, and come again
                raise Cut

    with pytest.raises(Cut):
        train(recipe, tmp_path / "run", progress=Cutting())
    with (tmp_path / "run" / "tables" / "run.csv").open("a") as file:
        file.write("8,1")  # a line that was torn
    result = train(recipe, tmp_path / "run", resume=True, progress=Progress())
    assert_logged(tmp_path / "run", result)


class Failing:
    """Fails from its third row on, in a way that no run expects."""

    said: list[str]

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self, folder: Path, recipe: dict[str, Any], step: int) -> None:
        self.calls.append("start")

    def log(self, row: dict[str, Any]) -> None:
        self.calls.append("log")
        if len(self.calls) > 3:
            raise SystemExit("the server is gone")

    def finish(self, result: dict[str, Any]) -> None:
        self.calls.append("finish")


class Mute:
    def start(self, folder: Path, recipe: dict[str, Any], step: int) -> None: ...


def resolved(name: str, target: str, *params: Param) -> Any:
    component = Component("logger", name, target=target, summary="for a test", params=params)
    plugin = Plugin("test", __name__, "test-zoo", "1.0", "v1", components=(component,))
    return Catalog([plugin]).resolve("logger", name)


def test_a_logger_that_fails_is_told_of_once_and_the_others_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    loggers = Loggers(
        [
            resolved("failing", f"{__name__}:Failing"),
            resolved("csv2", CSV, Param("path", str, "metrics.csv", "For a test")),
        ],
        said.append,
    )
    failing: Failing = loggers._loggers[0][1]
    loggers.tell("start", tmp_path, {}, 0)
    for step in range(1, 9):
        loggers.tell("log", {"step": step, "epoch": 0, "loss": 1.0})
    loggers.tell("finish", {})
    assert failing.calls == ["start", "log", "log", "log"]
    assert len(said) == 1
    assert "logger test-zoo/failing failed" in said[0]
    assert "the server is gone" in said[0]
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 9


CSV = f"{CsvLogger.__module__}:{CsvLogger.__name__}"


def test_a_failing_logger_does_not_stop_a_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: CsvLogger, row: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CsvLogger, "log", broken)
    folder, result = run({"logging.loggers": ["csv"]})
    assert result["steps"] == 12
    assert [row["step"] for row in read_metrics(folder) if "loss" in row] == list(range(1, 13))


def test_what_cannot_log_is_refused_before_the_run_begins(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PluginError, match="has no log and no finish"):
        Loggers([resolved("mute", f"{__name__}:Mute")])
    # as it is where tensorboard is not installed
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(PluginError, match=r"simsiam-zoo\[tensorboard\]") as caught:
        train(tiny(BOTH), tmp_path / "run", progress=Progress())
    assert caught.value.exit_code == 3
    assert not (tmp_path / "run").exists()


def test_loggers_are_chosen_on_the_command_line(zoo: Callable[..., Any]) -> None:
    chosen = ["--log", "csv:path=a.csv", "--log", "tensorboard"]
    done = zoo("train", "--preset", "digits", *chosen, "--stop-on-collapse", "--dry-run", "--json")
    recipe = json.loads(done.stdout)["recipe"]
    assert recipe["logging"]["loggers"] == ["csv:path=a.csv", "tensorboard"]
    assert recipe["training"]["stop_on_collapse"] is True
    done = zoo("train", "--log", "tensorbord", "--dry-run")
    assert done.returncode == 2
    assert "Did you mean tensorboard?" in done.stderr
