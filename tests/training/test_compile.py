"""`training.compile`, with backends that generate no code: "eager" and "aot_eager"."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.checkpoint import load_last
from simsiam_zoo.runtime.device import compile_in_place
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training import setup as preparing
from simsiam_zoo.training.setup import prepare
from simsiam_zoo.training.train import train

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _forget_what_was_compiled():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_module_has_the_same_state_values_and_gradients(backend: str) -> None:
    plain, compiled = two_layers(), two_layers()
    compile_in_place([compiled], CPU, backend)
    x = torch.randn(5, 3)
    for network in (plain, compiled):
        network(x).square().sum().backward()
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    torch.testing.assert_close(plain.eval()(x), compiled.eval()(x))


def test_the_modules_own_code_is_what_is_compiled() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        graphs.append(graph)
        return graph.forward

    network = two_layers()
    compile_in_place([network, nn.Identity()], CPU, backend)  # type: ignore[arg-type]
    network(torch.randn(5, 3))
    assert len(graphs) == 1
    assert sum(node.op == "call_function" for node in graphs[0].graph.nodes) >= 4


def test_a_machine_without_a_compiler_is_told_before_the_first_step(monkeypatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match=r"a C\+\+ compiler on cpu, and there is none\n.*g\+\+"):
        compile_in_place([two_layers()], CPU)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="CXX = 'no-such-compiler' is none"):
        compile_in_place([two_layers()], CPU)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs Triton on CUDA"):
        compile_in_place([two_layers()], torch.device("cuda"))


def test_a_compiled_run_says_so_and_ends_as_the_plain_one_but_for_rounding(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of a run: steps, looks, checkpoints, evaluation, export; then a plain resume."""
    compiling = functools.partial(compile_in_place, backend="eager")
    monkeypatch.setattr(preparing, "compile_in_place", compiling)
    said: list[str] = []
    progress = Progress()
    progress.say = said.append  # type: ignore[method-assign]
    results = {}
    for name, compiled in (("plain", False), ("compiled", True)):
        # A backbone with few operations: tracing takes longer than training here.
        small = {"backbone": "test_resnet", "training.epochs": 1}
        recipe = tiny({**small, "training.compile": compiled})
        results[name] = train(recipe, tmp_path / name, progress=progress)
        assert len([line for line in said if "not hold" in line]) == compiled
    plain, compiled = (load_last(tmp_path / name / "checkpoints")[0]["siamese"] for name in results)
    assert list(plain) == list(compiled)
    for key, value in plain.items():
        torch.testing.assert_close(compiled[key], value, msg=key)
    assert results["plain"]["identity"] == results["compiled"]["identity"]
    assert "compile = true" in (tmp_path / "compiled" / "lock.toml").read_text()


def test_the_backbone_the_projector_and_the_predictor_are_compiled_as_setup_left_them(
    tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[nn.Module]] = []
    monkeypatch.setattr(
        preparing, "compile_in_place", lambda modules, device: seen.append(list(modules))
    )
    siamese = prepare(tiny({"training.compile": True})).siamese
    assert seen == [[siamese.backbone, siamese.projector, siamese.predictor]]
    assert not any(hasattr(part, "_orig_mod") for part in siamese.modules())
