"""The functions that commands call, as a notebook calls them; the commands' tests hold the rest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import TINY

import simsiam_zoo as zoo
from simsiam_zoo.api.results import Page
from simsiam_zoo.api.studies import PlannedStudy
from simsiam_zoo.charts.tables import html_table, text_table
from simsiam_zoo.errors import InputError, PluginError, StoppedError


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> zoo.Run:
    """A run of its own, in `run` below the working directory."""
    shutil.copytree(tiny_run, tmp_path / "run", symlinks=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "cache"))
    return zoo.load("run")


def test_no_function_of_the_catalogue_or_of_found_runs_imports_torch(tmp_path: Path) -> None:
    code = (
        "import sys, simsiam_zoo as zoo; zoo.list_components('predictor'); zoo.list_plugins();"
        "zoo.show_component('predictor', 'mlp'); zoo.runs(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0


def test_what_is_no_run_or_no_name_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, simsiam_zoo as zoo\n"
        "from simsiam_zoo.errors import InputError\n"
        "wrong = {\n"
        "    'no run in nowhere': (zoo.look, zoo.embed, lambda run: zoo.export(run, 'timm')),\n"
        "    'Did you mean timm?': [lambda run: zoo.export(run, 'tim')],\n"
        "    'Did you mean knn?': [lambda run: zoo.evaluate(run, protocols=['kn'])],\n"
        "    'Did you mean mnist-5k?': [lambda run: zoo.evaluate(run, 'mnist5k')],\n"
        "}\n"
        "for words, calls in wrong.items():\n"
        "    for call in calls:\n"
        "        try:\n            call('nowhere')\n"
        "        except InputError as error:\n            assert words in str(error), error\n"
        "        else:\n            raise AssertionError\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_a_figure_is_the_trained_networks(run: zoo.Run) -> None:
    figures = run.result["figures"]
    pixels = {**figures[0], "network": "raw pixels", "top1": 1.0}
    run.__dict__["result"] = {**run.result, "figures": [*figures, pixels]}
    best = max(run.figures, key=lambda row: row["top1"])
    assert best["network"] == "trained network"
    assert best["top1"] < 1
    assert run.baselines == [pixels]
    assert run.top1("knn") == run.figures[0]["top1"]
    assert run.top1("logistic") == run.figures[-1]["top1"]
    with pytest.raises(InputError, match="no figure of 'linear'"):
        run.top1("linear")


def test_a_run_is_printed_in_lines_that_fit(run: zoo.Run) -> None:
    head, reason, *table = str(run).splitlines()
    assert (head, reason) == (f"run: {run.verdict}", f"  {run.result['reason']}")
    assert len({len(line) for line in table}) == 1
    assert len(repr(run)) < 100
    assert repr(run).startswith(f"Run('run', {run.verdict}: knn k=20 ")


def test_an_evaluation_has_the_figures_of_the_run_and_its_own_report(run: zoo.Run) -> None:
    found = zoo.evaluate(run, protocols=["knn:k=20"], quiet=True)
    assert found.top1("knn") == pytest.approx(run.top1("knn k=20"))
    assert found.path == Path("run/evaluations/1.json")
    assert json.loads(found.path.read_text()) == found.report
    assert f"{100 * found.top1('knn'):.1f} %" in str(found)
    assert "<table>" in found._repr_html_()
    with pytest.raises(InputError, match="mnist-5k"):
        zoo.evaluate(run, "mnist5k", quiet=True)
    with pytest.raises(InputError, match=r"no data at \./nowhere"):
        zoo.evaluate(run, Path("nowhere"), quiet=True)  # a path needs no ./ in front


def test_features_are_those_of_the_backbone_and_of_the_file(run: zoo.Run) -> None:
    found = zoo.embed(run, "features.npz", quiet=True)
    kept = zoo.embed(run, split="test", quiet=True)
    assert (kept.path, [*kept.splits]) == (None, ["test"])
    with np.load("features.npz") as file:
        both = torch.cat([each.x for each in found.splits.values()])
        assert np.array_equal(file["features"], both.numpy())
    assert torch.equal(kept.splits["test"].x, found.splits["test"].x)
    assert len(found.splits["train"].labels) == 96
    Path("photos").mkdir()
    for call in (zoo.embed, zoo.look):  # as of `train --data`
        with pytest.raises(InputError, match=r"A path begins with \./"):
            call(run, data="photos", quiet=True)


def test_a_page_a_list_and_a_comparison(run: zoo.Run) -> None:
    shutil.copytree("run", "runs/other")
    with pytest.raises(InputError, match=r"no data at \./run2"):
        zoo.look(run, data=Path("run2"), quiet=True)
    page = zoo.look(run, images=20, method="pca", quiet=True)
    assert page.path == Path("run/look.html")
    assert page.path.read_text().startswith("<!doctype html>")
    assert 'src="run/look.html"' in page._repr_html_()
    odd = Page(Path("50 % <b>#1?/look.html"))._repr_html_()
    assert 'src="50%20%25%20%3Cb%3E%231%3F/look.html"' in odd
    assert ">50 % &lt;b&gt;#1?/look.html</a>" in odd

    found = zoo.runs("run", "runs", where=["verdict=" + str(run.verdict)], sort="name")
    assert [str(each.folder) for each in found] == ["run", "runs/other"]
    assert found.rows[0]["figures"] == {each["protocol"]: each["top1"] for each in run.figures}
    assert zoo.load(found[1].folder).figures == run.figures
    assert found.best("knn")[0]["runs"] == 2
    assert "runs/other" in str(found)
    assert found.write("runs.html").path.is_file()

    same = zoo.compare(run, "other", out="compare.html")
    assert same.keys == {}
    assert {
        gap["mean"] for metric in same.data["metrics"] for gap in metric["differences"][1:]
    } == {0.0}
    assert "+0.0" in str(same)
    assert same.page is not None
    assert same.page.path.is_file()
    with pytest.raises(InputError, match="one run alone"):
        zoo.compare(run)


def test_a_search_has_a_folder_of_its_own_beside_the_run(
    run: zoo.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []

    def stop(planned: PlannedStudy, **_: object) -> None:
        folders.append(planned.folder)
        raise StoppedError("enough")

    monkeypatch.setattr(PlannedStudy, "run", stop)
    shutil.copytree("run", "lr0.5")
    for name in ("run", "lr0.5", "lr0.5/recipe.toml"):
        with pytest.raises(StoppedError):
            zoo.tune(name)
    monkeypatch.chdir("lr0.5")
    with pytest.raises(StoppedError):
        zoo.tune(".")
    beside = [Path("run-tune"), Path("lr0.5-tune"), Path("lr0.5/recipe-tune")]
    assert folders == [*beside, tmp_path / "lr0.5-tune"]


def test_an_export_is_loaded_by_what_it_says(run: zoo.Run) -> None:
    done = zoo.export(run, "safetensors", "weights.safetensors")
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(zoo.load_backbone(done.path)(x), run.backbone(x), atol=1e-5)


def test_images_are_packed_inspected_and_indexed(tmp_path: Path, digit_shards: Path) -> None:
    from PIL import Image

    for n in range(6):
        folder = tmp_path / "photos" / ("a" if n % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * n, 0, 0)).save(folder / f"{n}.png")
    (tmp_path / "photos" / "a" / "broken.png").write_bytes(b"no image")
    packed = zoo.pack(tmp_path / "photos", tmp_path / "packed", jobs=1, quiet=True)
    assert packed.classes == ("a", "b")
    assert packed.damaged == 1
    assert sum(split["samples"] for split in packed.splits.values()) == 6
    assert zoo.pack(tmp_path / "photos", tmp_path / "packed", jobs=1, quiet=True).already

    grid = tmp_path / "views.png"
    found = zoo.inspect(packed.folder, check=True, grid=grid, quiet=True)
    assert found.classes == ("a", "b")
    assert found.damaged == []
    assert grid.is_file()
    assert str(grid) in found.drawn[0]

    shutil.copytree(digit_shards, tmp_path / "foreign")
    counted = zoo.index(tmp_path / "foreign", jobs=1, quiet=True)
    assert (counted.samples, counted.labelled) == (160, 160)
    assert counted.folder == tmp_path / "foreign"


def test_components_are_plain_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = zoo.list_components("predictor")
    assert {row["kind"] for row in rows} == {"predictor"}
    assert {"none", "mlp"} <= {row["call"] for row in rows}
    assert {p["name"] for p in zoo.show_component("predictor", "mlp")["params"]} >= {"hidden_dim"}
    with pytest.raises(InputError, match="kind"):
        zoo.list_components("predicter")
    assert zoo.list_plugins()[0]["distribution"] == "simsiam-zoo"
    monkeypatch.chdir(tmp_path)
    files = zoo.new_plugin("mild-zoo", "loss")
    assert Path("mild-zoo/pyproject.toml") in files
    assert all(file.is_file() for file in files)
    with pytest.raises(InputError, match="mild-zoo"):
        zoo.check_plugin("mild-zoo", fast=True)  # it is not installed
    Path("empty.py").write_text("")
    with pytest.raises(PluginError):
        zoo.use_plugin("empty.py")


def test_the_machine_is_looked_at_without_a_run() -> None:
    checks = zoo.doctor(run=False)
    assert "ten steps" not in {check.name for check in checks}
    assert {check.state for check in checks} <= {"ok", "warning", "problem"}


STUDY: dict[str, Any] = {
    "title": "Which part?",
    "ablation": [{"part": "predictor", "action": "remove", "label": "no predictor"}],
}


def test_a_study_is_planned_run_and_read(
    tmp_path: Path, digit_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {**TINY, "dataset": str(digit_shards), "training.epochs": 1}
    del settings["training.threads"]
    base = zoo.Recipe.make("digits", settings=settings)
    study = {**STUDY, "base": base}
    planned = zoo.plan_study(study, seeds=[1], metrics=["knn"], jobs=2)
    assert [arm.label for arm in planned.plan.arms] == ["base", "no predictor"]
    assert planned.folder.parent == Path("runs")
    assert not planned.folder.exists()
    estimate = planned.estimate()
    assert (estimate["runs"], estimate["jobs"]) == (2, 2)
    with pytest.raises(InputError, match="no results of an earlier study"):
        planned.seeds_for(2)

    results = zoo.ablate(study, seeds=[1], metrics=["knn"], jobs=2, quiet=True)
    assert results.folder == planned.folder
    written = json.loads((results.folder / "results.json").read_text())
    assert written == json.loads(json.dumps(results.data))
    assert [row["seed"] for row in results.rows] == [1, 1]
    name = [*results.arms][1]
    run = results.run(name, seed=1)
    assert run.recipe.predictor.name == "none"
    assert run.top1("knn") in results.rows[1].values()
    assert results.report.path.is_file()
    lines = str(results).splitlines()
    assert lines[0] == "Which part?"
    assert len(lines) == 5
    assert "no predictor" in results._repr_html_()
    with pytest.raises(InputError, match="no run of 'nothing'"):
        results.run("nothing")
    assert zoo.write_report(results.folder).data["arms"] == results.data["arms"]
    assert results.data["provenance"]["command"] is None  # it was asked for from Python


def test_keys_of_a_study_are_stated_as_on_the_command_line() -> None:
    tuned = zoo.plan_study("predictor", preset="digits", tune={"optim.lr": [0.5, 1], "length": 1})
    assert tuned.plan.tune is not None
    assert (tuned.plan.tune.grid, tuned.plan.tune.length) == ({"optim.lr": (0.5, 1)}, 1)
    with pytest.raises(InputError, match="no arm 'nothing'"):
        zoo.plan_study("predictor", preset="digits", only=["nothing"])


def test_tables_are_aligned_and_escaped() -> None:
    rows = [["", "top-1"], ["trained", "95.6 %"], ["raw <pixels>", "4 %"]]
    assert text_table(rows).splitlines() == [
        "                 top-1",
        "  trained       95.6 %",
        "  raw <pixels>     4 %",
    ]
    assert text_table([]) == ""
    assert text_table([["猫", "1"], ["a", "犬犬"]], "") == "猫     1\na   犬犬"
    page = html_table(rows, "a <b>")
    assert "<td>raw &lt;pixels&gt;</td>" in page
    assert "a &lt;b&gt;" in page
    assert page.count("<tr>") == 3
