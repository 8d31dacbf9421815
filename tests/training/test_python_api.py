"""The Python API, as a notebook uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import simsiam_zoo as zoo
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.model.siamese import Batch
from simsiam_zoo.runtime.checkpoint import load_last
from simsiam_zoo.training.setup import prepare


@pytest.fixture
def trained(tiny: Callable[..., zoo.Recipe], tmp_path: Path) -> zoo.Run:
    return zoo.train(tiny({"training.epochs": 1}), tmp_path / "run", quiet=True)


def test_the_public_names_are_there_and_the_heavy_ones_are_imported_when_used() -> None:
    assert set(zoo.__all__) == zoo._HOMES.keys() <= set(dir(zoo))
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        zoo.trian  # type: ignore[attr-defined]  # noqa: B018
    code = (
        "import sys, simsiam_zoo as zoo; dir(zoo); assert 'pydantic' not in sys.modules;"
        "zoo.Recipe.make('digits'); assert 'torch' not in sys.modules;"
        "from simsiam_zoo import *; assert 'torch' in sys.modules and train is zoo.train"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_script_without_a_guard_leaves_no_folder_behind(
    tiny: Callable[..., zoo.Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import simsiam_zoo as zoo\n")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None, raising=False)
    with pytest.raises(InputError, match=r"script\.py would run again") as caught:
        zoo.train(tiny({"data.workers": 1}), tmp_path / "run", quiet=True)
    assert "__main__" in (caught.value.hint or "")
    assert not (tmp_path / "run").exists()
    assert zoo.train(tiny({"training.epochs": 1}), tmp_path / "run", quiet=True).verdict


def test_build_gives_the_weights_that_a_run_starts_from(tiny: Callable[..., zoo.Recipe]) -> None:
    recipe = tiny({"training.seed": 3})
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    model = zoo.build(recipe)
    assert torch.equal(torch.rand(1), expected)  # the notebook's own generator goes on

    with torch.random.fork_rng(devices=[]):
        theirs = prepare(recipe).siamese.state_dict()
    assert list(model.state_dict()) == list(theirs)
    for key, value in model.state_dict().items():
        assert torch.equal(value, theirs[key])
    loss = model(Batch([torch.randn(4, 3, 16, 16) for _ in range(2)]))
    loss.backward()
    assert -1 <= loss.item() <= 1


def test_build_needs_no_data_at_hand() -> None:
    model = zoo.build(zoo.Recipe.make("imagenet", settings={"backbone": "resnet10t"}))
    assert model.dim == 2048


def test_train_gives_the_run_and_leaves_the_threads_alone(
    tiny: Callable[..., zoo.Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run = zoo.train(tiny({"training.epochs": 1}), tmp_path / "run")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert "6 steps of 16" in capsys.readouterr().err  # plain lines: stderr is no terminal here

    assert run.folder == tmp_path / "run"
    assert run.result == json.loads((run.folder / "result.json").read_text())
    assert run.verdict == run.result["verdict"]
    assert (
        {f["protocol"] for f in run.figures}
        == {f["protocol"] for f in run.result["figures"]}
        != set()
    )
    assert [row["step"] for row in run.metrics if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert run.lock["machine"]["threads"] == 1


def test_a_run_without_out_goes_to_a_new_folder(
    tiny: Callable[..., zoo.Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("simsiam_zoo.training.run.train_in", lambda recipe, out, **_: out.mkdir())
    Path("runs").mkdir()
    recipe = tiny()
    folders = [str(zoo.train(recipe, quiet=True).folder) for _ in range(2)]
    assert folders == [f"runs/{recipe.run_name()}", f"runs/{recipe.run_name()}-2"]
    with pytest.raises(InputError, match="no run to resume"):
        zoo.train(recipe, resume=True)


def test_load_gives_back_what_train_gave_with_the_trained_weights(trained: zoo.Run) -> None:
    run = zoo.load(str(trained.folder))
    assert run == trained
    assert (run.result, run.metrics, run.lock) == (trained.result, trained.metrics, trained.lock)

    saved = load_last(run.folder / "checkpoints")[0]["siamese"]
    assert all(torch.equal(value, saved[key]) for key, value in run.model.state_dict().items())
    assert not run.model.training
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        features = run.backbone(x)
        assert torch.equal(features, run.model.backbone(x))
        assert torch.equal(run.model.encode(x), run.model.projector(features))
    assert run.backbone is not run.model.backbone  # from the exported file, not the checkpoint


def test_a_run_that_is_not_complete_can_be_looked_at_and_gone_on_with(trained: zoo.Run) -> None:
    result = trained.result
    for name in ("result.json", "backbone.safetensors"):
        (trained.folder / name).unlink()
    run = zoo.load(trained.folder)
    assert (run.result, run.verdict, run.figures) == (None, None, [])
    assert "not complete" in repr(run)
    assert "not complete" in run._repr_html_()
    theirs = run.model.backbone.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in run.backbone.state_dict().items())
    again = zoo.train(run.recipe, run.folder, resume=True, quiet=True)
    assert again.figures == result["figures"]


def test_weights_of_something_else_are_refused(trained: zoo.Run) -> None:
    save_file({"other": torch.zeros(1)}, trained.folder / "backbone.safetensors")
    with pytest.raises(DataError, match="does not fit the recipe beside it"):
        _ = zoo.load(trained.folder).backbone
    (trained.folder / "backbone.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(DataError, match="cannot be read"):
        _ = zoo.load(trained.folder).backbone
    with pytest.raises(InputError, match="there is no run"):
        zoo.load(trained.folder / "checkpoints")


def test_a_run_prints_its_verdict_and_every_figure(trained: zoo.Run) -> None:
    assert repr(trained).startswith(f"Run('{trained.folder}', {trained.verdict}: knn k=20 ")
    for figure in trained.figures:
        assert f" {100 * figure['top1']:.1f} %" in repr(trained)
        assert f" {100 * figure['top1']:.1f} %" in str(trained)
        assert f"<td>{100 * figure['top1']:.1f} %</td>" in trained._repr_html_()


def test_a_notebook_shows_a_table_and_escapes_what_files_say(trained: zoo.Run) -> None:
    assert f"{trained.verdict}: {trained.result['reason']}" in trained._repr_html_()
    odd = zoo.Run(Path("<script>"), trained.recipe)
    odd.__dict__["result"] = {**trained.result, "reason": "a < b"}
    assert "<script>" not in odd._repr_html_()
    assert "a &lt; b" in odd._repr_html_()


def test_a_name_in_the_place_of_a_recipe_is_refused_with_the_right_way() -> None:
    with pytest.raises(InputError, match="train takes a Recipe, not 'digits'") as caught:
        zoo.train("digits")  # type: ignore[arg-type]
    assert caught.value.hint == 'Say Recipe.make("digits").'
