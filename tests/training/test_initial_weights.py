"""Runs that start from weights: another run's, or those that timm has."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from timm.models import _builder
from tiny_runs import tiny_recipe
from torch import Tensor, nn

import simsiam_zoo as zoo
from simsiam_zoo.cli.train import train as command
from simsiam_zoo.errors import DataError, InputError, StoppedError
from simsiam_zoo.model.gradients import StopGradient
from simsiam_zoo.model.siamese import Siamese
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.conclude import untrained_network
from simsiam_zoo.training.setup import prepare
from simsiam_zoo.training.weights import INIT_FILE, InitialWeights, read_initial_weights

Tiny = Callable[..., Recipe]
STILL: dict[str, object] = {"optim.lr": 1e-12, "training.epochs": 1, "training.seed": 7}
"""A run whose weights stay where they started from, with another seed than the one before it."""


@pytest.fixture(scope="module")
def trained(digit_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> zoo.Run:
    recipe = tiny_recipe(digit_shards, {"training.epochs": 4})
    return zoo.train(recipe, tmp_path_factory.mktemp("trained") / "run", progress=Progress())


def weights(run: zoo.Run, part: str) -> dict[str, Tensor]:
    """Without what BN counts, which goes on."""
    state = run.model.get_submodule(part).state_dict()
    return {
        key: value for key, value in state.items() if "running" not in key and "num_" not in key
    }


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    assert a
    assert a.keys() == b.keys()
    return all(torch.allclose(a[key], b[key], atol=1e-6) for key in a)


def test_a_run_starts_from_the_weights_of_another(tiny: Tiny, trained, tmp_path) -> None:
    run = zoo.train(tiny(STILL), tmp_path / "run", init=str(trained.folder), progress=Progress())
    for part in ("backbone", "projector", "predictor"):
        assert same(weights(run, part), weights(trained, part)), part
    lock = tomllib.loads((run.folder / "lock.toml").read_text())
    assert lock["init"]["source"] == str(trained.folder)
    assert lock["init"]["parts"] == ["backbone", "projector", "predictor"]
    assert run.recipe.training.init == lock["init"]["sha256"][:16]
    anew = zoo.train(tiny(STILL), tmp_path / "anew", progress=Progress())
    assert not same(weights(anew, "backbone"), weights(trained, "backbone"))
    assert anew.lock["identity"] != run.lock["identity"]


def test_the_verdict_compares_with_the_start(tiny: Tiny, trained, tmp_path) -> None:
    start = read_initial_weights(str(trained.folder), tiny(STILL))
    setup = prepare(start.named_in(tiny(STILL)), start.states)
    compared = dict(untrained_network(setup).named_parameters())
    for name, value in trained.model.named_parameters():
        assert torch.equal(compared[name], value), name
    shown = tiny({**STILL, "evaluation.baselines": True})
    run = zoo.train(shown, tmp_path / "run", init=start, progress=Progress())
    assert run.verdict != "learned"
    assert run.result is not None
    assert "on the starting network" in run.result["reason"]
    assert run.figures
    assert "starting network" in {figure["network"] for figure in run.baselines}


def test_an_interrupted_run_ends_alike_when_its_source_is_gone(
    tiny: Tiny, trained, tmp_path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(trained.folder, source)
    recipe = tiny({"training.seed": 3, "training.checkpoint_steps": 1})
    whole = zoo.train(recipe, tmp_path / "whole", init=str(source), progress=Progress())

    class Interrupting(Progress):
        def advance(self, done: int, text: str = "") -> None:
            if done == 5:
                raise StoppedError("enough")

    with pytest.raises(StoppedError):
        zoo.train(recipe, tmp_path / "cut", init=str(source), progress=Interrupting())
    shutil.rmtree(source)
    cut = zoo.load(tmp_path / "cut")
    (cut.folder / INIT_FILE).rename(tmp_path / "aside")
    with pytest.raises(DataError, match="the weights that the run started from are gone"):
        zoo.train(cut.recipe, cut.folder, resume=True, progress=Progress())
    (tmp_path / "aside").rename(cut.folder / INIT_FILE)
    cut = zoo.train(cut.recipe, cut.folder, resume=True, progress=Progress())
    for key, value in whole.model.state_dict().items():
        assert torch.equal(cut.model.state_dict()[key], value), key
    assert cut.result is not None
    assert whole.result is not None
    assert cut.result["evidence"] == whole.result["evidence"]


def test_what_comes_after_another_part_starts_at_random(tiny: Tiny, trained, tmp_path) -> None:
    recipe = tiny({**STILL, "projector": "mlp:layers=2,hidden_dim=24,out_dim=32"})
    said: list[str] = []
    progress = Progress()
    progress.say = said.append  # type: ignore[method-assign, assignment]
    run = zoo.train(recipe, tmp_path / "run", init=str(trained.folder), progress=progress)
    assert same(weights(run, "backbone"), weights(trained, "backbone"))
    assert not same(weights(run, "predictor"), weights(trained, "predictor"))
    assert f"backbone from {trained.folder}; projector and predictor at random" in said
    assert run.lock["init"]["parts"] == ["backbone"]


def test_parts_are_set_up_once_with_the_weights(tiny: Tiny, trained, tmp_path, monkeypatch) -> None:
    """A part that copies the encoder must not keep the weights that it replaced."""
    seen: list[Tensor] = []

    def setup(self: StopGradient, siamese: Siamese) -> None:
        seen.append(siamese.backbone.layer1[0].conv1.weight.detach().clone())

    monkeypatch.setattr(StopGradient, "setup", setup, raising=False)
    prepare(tiny(STILL), read_initial_weights(str(trained.folder), tiny(STILL)).states)
    (found,) = seen
    assert torch.equal(found, trained.model.backbone.layer1[0].conv1.weight)


def test_a_module_that_a_part_makes_in_setup_is_trained(
    tiny: Tiny, trained, tmp_path, monkeypatch
) -> None:
    """Also where the run starts from weights: the optimiser has the module that is used."""

    def setup(self: StopGradient, siamese: Siamese) -> None:
        self.scale = nn.Parameter(torch.ones(()))

    def target(self: StopGradient, z: Tensor) -> Tensor:
        return self.scale * z.detach() + self.scale

    monkeypatch.setattr(StopGradient, "setup", setup)
    monkeypatch.setattr(StopGradient, "target", target)
    recipe = tiny({"training.epochs": 1})
    run = zoo.train(recipe, tmp_path / "run", init=str(trained.folder), progress=Progress())
    assert run.model.gradient.scale != 1


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """What timm's hub gives for any model here: a `test_resnet` with its classifier."""
    torch.manual_seed(5)
    state = timm.create_model("test_resnet").state_dict()
    monkeypatch.setattr(_builder, "load_state_dict_from_hf", lambda *_, **__: dict(state))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: "cached")
    return state


def test_a_run_starts_from_the_weights_that_timm_has(tiny: Tiny, published, tmp_path) -> None:
    run = zoo.train(tiny(STILL), tmp_path / "run", init="timm:pretrained", progress=Progress())
    found = weights(run, "backbone")
    assert same(found, {key: published[key] for key in found})
    assert run.lock["init"]["parts"] == ["backbone"]


def test_where_timm_has_none_the_way_out_is_told(tiny: Tiny, tmp_path) -> None:
    with pytest.raises(InputError, match="is none"):
        read_initial_weights("timm:pretrained", tiny({"backbone": "resnet18_cifar"}))
    bare = next(m for m in timm.list_models("resnet*") if not timm.is_model_pretrained(m))
    with pytest.raises(InputError, match=f"timm has no weights for {bare}"):
        read_initial_weights("timm:pretrained", tiny({"backbone": bare}))
    with pytest.raises(InputError, match="--init takes a run or timm:pretrained"):
        read_initial_weights("timm:resnet18", tiny())


def test_a_hub_that_cannot_be_reached_is_told(tiny: Tiny, monkeypatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to the hub")

    monkeypatch.setattr(_builder, "load_state_dict_from_hf", unreachable)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: "cached")
    with pytest.raises(InputError, match="cannot be had: OSError: no route to the hub") as caught:
        read_initial_weights("timm:pretrained", tiny())
    assert caught.value.hint == "Leave out --init for random ones."


def test_a_hub_that_does_not_answer_is_not_asked_again_and_again(tiny: Tiny, monkeypatch) -> None:
    asked: list[str] = []

    def silent(url: str, timeout: float) -> None:
        asked.append(url)
        raise TimeoutError(f"no answer in {timeout:g} s")

    def tries_for_a_minute(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(_builder, "load_state_dict_from_hf", tries_for_a_minute)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", silent)
    with pytest.raises(InputError, match="cannot be had: TimeoutError: no answer in 5 s"):
        read_initial_weights("timm:pretrained", tiny())
    (url,) = asked
    assert url.endswith("/model.safetensors")


def test_what_does_not_go_together_is_refused(tiny: Tiny, trained, tmp_path) -> None:
    other = tiny({"backbone": "test_vit", "data.image_size": 16})
    with pytest.raises(InputError, match=r"has the backbone .*test_resnet") as caught:
        read_initial_weights(str(trained.folder), other)
    assert "--backbone" in (caught.value.hint or "")
    with pytest.raises(InputError, match="there is no run 'nowhere' to start from"):
        read_initial_weights("nowhere", tiny())
    recipe = read_initial_weights(str(trained.folder), tiny()).named_in(tiny())
    with pytest.raises(InputError, match="starts from the weights"):
        zoo.train(recipe, tmp_path / "without", progress=Progress())
    assert not (tmp_path / "without").exists()
    others = InitialWeights("elsewhere", {"backbone.weight": torch.zeros(1)})
    with pytest.raises(InputError, match="elsewhere has others"):
        zoo.train(recipe, tmp_path / "without", init=others, progress=Progress())
    done = CliRunner().invoke(command, ["--resume", str(trained.folder), "--init", "x"])
    assert isinstance(done.exception, InputError)
    assert "no --init" in str(done.exception)


def test_one_weight_more_or_less_is_another_digest(tiny: Tiny, trained, tmp_path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained.folder, folder)
    first = read_initial_weights(str(folder), tiny()).digest
    assert first == read_initial_weights(str(trained.folder), tiny()).digest
    shutil.rmtree(folder / "checkpoints")
    alone = read_initial_weights(str(folder), tiny())
    assert alone.parts == ["backbone"]
    state = load_file(folder / "backbone.safetensors")
    state["layer1.0.conv1.weight"][0] += 1e-3
    save_file(state, folder / "backbone.safetensors")
    assert read_initial_weights(str(folder), tiny()).digest != alone.digest
    (folder / "backbone.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match="cannot be read"):
        read_initial_weights(str(folder), tiny())


def test_the_weights_that_a_run_started_from_are_kept(tiny: Tiny, trained, tmp_path) -> None:
    run = zoo.train(tiny(STILL), tmp_path / "run", init=trained.folder, progress=Progress())
    kept = load_file(run.folder / INIT_FILE)
    theirs = trained.model.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in kept.items())
    assert any(key.startswith("predictor.") for key in kept)
