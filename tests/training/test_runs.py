"""Real runs, small ones: what they leave behind, and that they repeat."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import timm
import torch
from safetensors import safe_open
from stopped_runs import Run, same, weights

from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime import distributed
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.setup import prepare


def test_a_run_leaves_everything_that_it_promises(run: Run, tiny: Callable[..., Recipe]) -> None:
    folder, result = run()

    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {
        ".lock",
        "recipe.toml",
        "lock.toml",
        "metrics.jsonl",
        "result.json",
        "correct.json",
        "curves.svg",
        "backbone.safetensors",
        "checkpoints/last.pt",
        "checkpoints/step-00000012.pt",
        "checkpoints/step-00000012.pt.sha256",
    }
    assert json.loads((folder / "result.json").read_text()) == result
    assert Recipe.make(None, folder / "recipe.toml") == tiny()
    lock = tomllib.loads((folder / "lock.toml").read_text())
    assert lock["identity"] == result["identity"] == prepare(tiny()).identity
    assert lock["parts"]["backbone"]["id"] == "simsiam-zoo/timm:test_resnet"
    drawn = ElementTree.parse(folder / "curves.svg").getroot()
    lines = list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) == 7 + 1 + 2  # a chart of what was measured twice; two views, three lr
    steps = [row["step"] for row in read_metrics(folder) if "loss" in row]
    assert steps == list(range(1, 13))


def test_the_backbone_that_is_left_loads_in_timm_and_gives_the_same_features(run: Run) -> None:
    folder, _ = run()
    file = folder / "backbone.safetensors"
    theirs = timm.create_model("test_resnet", num_classes=0, checkpoint_path=str(file)).eval()
    ours = timm.create_model("test_resnet", num_classes=0).eval()
    ours.load_state_dict(
        {
            key.removeprefix("backbone."): value
            for key, value in weights(folder).items()
            if key.startswith("backbone.")
        }
    )
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(theirs(x), ours(x))
    with safe_open(file, "pt") as opened:
        assert (
            "timm.create_model('test_resnet', num_classes=0)"
            in opened.metadata()["simsiam_zoo.python"]
        )


def test_the_same_seed_gives_the_same_weights_to_the_bit_and_another_does_not(run: Run) -> None:
    a, b, c = (
        run({"training.seed": seed}, name)[0] for name, seed in zip("abc", (5, 5, 6), strict=True)
    )
    assert same(weights(a), weights(b))
    assert not same(weights(a), weights(c))


def test_looking_and_logging_leave_the_weights_as_they_would_be(run: Run) -> None:
    a, _ = run({"evaluation.online_epochs": 1, "logging.interval_steps": 1}, "a")
    b, _ = run({"evaluation.online_epochs": 0, "logging.interval_steps": 100}, "b")
    assert same(weights(a), weights(b))


def test_the_callers_generator_is_left_alone(run: Run) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run()
    assert torch.equal(torch.rand(2), expected)


def test_threads_that_nobody_named_are_those_that_were_fastest(
    tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simsiam_zoo.runtime.machine.available_cores", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before, tried = torch.get_num_threads(), []

    def chosen(settings: dict[str, object]) -> tuple[int, int]:
        setup = prepare(tiny(settings))
        return setup.runtime.threads, setup.lock["machine"]["threads"]

    def fastest(step: Callable[[], object], most: int) -> int:
        step()
        tried.append(most)
        return 2

    monkeypatch.setattr("simsiam_zoo.training.setup.fastest_threads", fastest)
    try:
        weights = prepare(tiny({"training.threads": 3})).siamese.state_dict()
        assert chosen({"training.threads": 0}) == (2, 2)
        tested = prepare(tiny({"training.threads": 0})).siamese.state_dict()
        assert all(torch.equal(weights[key], tested[key]) for key in weights)  # it leaves no trace
        assert tried == [3, 3]
        assert chosen({"training.threads": 3}) == (3, 3)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert chosen({"training.threads": 0}) == (3, 3)
        assert tried == [3, 3]
    finally:
        torch.set_num_threads(before)


def test_standing_still_is_not_learning(run: Run) -> None:
    """The untrained network has BN statistics too: an lr of nothing gains nothing on it."""
    for seed in (0, 1, 2):
        settings = {"optim.lr": 1e-12, "training.seed": seed, "training.epochs": 4}
        _, result = run(settings, f"still-{seed}")
        assert result["verdict"] == "no-gain", result["reason"]


def test_a_new_run_never_lands_on_another(run: Run, tmp_path: Path) -> None:
    run()
    with pytest.raises(InputError, match="holds another run"):
        run()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="no empty folder"):
        run(name="full")


def test_a_folder_that_not_all_processes_see_is_left_for_another_try(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "collect", lambda seen: [seen] if seen is not True else [1, 0])
        with pytest.raises(InputError, match="not all processes see"):
            run()
    run()


def test_the_predictors_lr_is_constant_and_the_others_follow_the_cosine(run: Run) -> None:
    folder, _ = run()
    rows = [row for row in read_metrics(folder) if "loss" in row]
    peak = 1.0 * 16 / 256
    assert [row["lr_predictor"] for row in rows] == [peak] * 12
    assert rows[0]["lr_backbone"] == peak
    assert rows[6]["lr_backbone"] == pytest.approx(peak / 2)
    assert rows[-1]["lr_backbone"] < 0.05 * peak
