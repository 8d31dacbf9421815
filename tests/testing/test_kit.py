"""The conformance kit: each check finds the one thing that it is for, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import wrong_parts
from wrong_zoo import FOUND_BY, zoo_components

from simsiam_zoo.catalog import KINDS
from simsiam_zoo.catalog.discovery import SELECTION
from simsiam_zoo.errors import InputError
from simsiam_zoo.testing.checks import (
    PLUGIN,
    Broken,
    ComponentUnderTest,
    Inapplicable,
    checks_of,
    components_of,
)
from simsiam_zoo.testing.part_checks import ConformanceBench

WRONG = [(component.kind, component.name) for component in zoo_components()]
SAYS = {
    "parameters": "is stated again by wrong_parts:Parameters, as 3",
    "target": "importing wrong_parts:Missing failed",
    "shapes": "gave [2, 7] for [2, 96], not [2, 8]",
    "inputs": "changed its input [2, 32] in place",
    "gradients": "no gradient reaches the views",
    "infinite-slope": "the gradient of a view is not finite",
    "thawing": "a step changed which are trained: ['gradient.scale']",
    "one-pair": "gave no list of pairs (prediction, target)",
    "ddp": "unused in step 1: spare.weight, spare.bias",
    "autocast": "raised RuntimeError",
    "channels-last": "RuntimeError: view size is not compatible",
    "compile": "compiled, ",
    "seed": "two builds with one seed differ in weight",
    "state": "with its state restored the next loss is",
    "copies": "cannot pickle '_thread.lock' object",
    "run": "16 images are too many",
    "views": "drew the box (0, 0, 8, 8) for an image of 1 x 7",
    "pixels": "gave float32 [16, 16, 3]",
    "draws": "drew other views with the same generator",
    "samples": "labels from 0 to 9, and 2 classes",
    "same-again": "has other train images each time",
    "scores": ", and 0.",
    "rows": "changed the row that it was given",
    "jobs": "says exit code 0 of a command that ended with 7",
    "written": "gives other features: they differ by up to",
    "recipe": "widht",
    "model": "projector wrong-zoo/run could not be built: RuntimeError: 512 features",
    "arms": "has no arm beside its base",
}
FILES = {
    "recipe.toml": 'extends = "digits"\n[projector]\nname = "mlp"\nwidht = 3\n',
    "model.toml": 'extends = "digits"\n[projector]\nname = "wrong-zoo/run"\n',
    "arms.toml": 'title = "Nothing"\nbase = { preset = "digits" }\n',
    "__init__.py": "",
}
METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: wrong-zoo\nVersion: 0.1\n",
    "entry_points.txt": "[simsiam_zoo.v1]\nwrong = wrong_zoo\n",
}


@pytest.fixture(scope="module", autouse=True)
def _wrong_zoo(tmp_path_factory: pytest.TempPathFactory, digit_shards: Path) -> Iterator[None]:
    site = tmp_path_factory.mktemp("site")
    for folder, files in (("wrong_files", FILES), ("wrong_zoo-0.1.dist-info", METADATA)):
        (site / folder).mkdir()
        for name, text in files.items():
            (site / folder / name).write_text(text)
    wrong_parts.SETTINGS["shards"] = digit_shards
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.setenv(SELECTION, "wrong-zoo")
        yield


def component(kind: str, name: str) -> ComponentUnderTest:
    return next(s for s in components_of("wrong-zoo") if s.label == f"{kind} {name}")


def failures(one: ComponentUnderTest, leave_out: set[str]) -> dict[str, str]:
    """Check → message; as in a session, one that fails a basic check is not asked the rest."""
    found: dict[str, str] = {}
    for check in checks_of(one.kind):
        if check.name in leave_out or (found and not check.basic):
            continue
        try:
            check.on(one)
        except Broken as error:
            found[check.name] = str(error)
            if check.basic:
                break
        except Inapplicable:
            pass
    return found


@pytest.mark.parametrize(("kind", "name"), WRONG, ids=lambda text: text)
def test_each_wrong_component_fails_the_one_check_that_is_for_it(kind: str, name: str) -> None:
    check = FOUND_BY.get(name, name)
    slow = {"run", "compile", "jobs"} - {check}
    found = failures(component(kind, name), slow)
    assert [*found] == [check], found
    assert SAYS[name] in found[check]
    assert f"{kind} {name}: " in found[check]
    asks, way_out = found[check].splitlines()[-2:]
    assert asks.startswith(f"  The contract ({check}): ")
    assert way_out.startswith("  The way out: ")
    assert asks.endswith(".")
    assert way_out.endswith(".")


def test_every_check_has_a_component_that_it_finds() -> None:
    every = {check.name for kind in {*KINDS, PLUGIN} for check in checks_of(kind)}
    assert every == {FOUND_BY.get(name, name) for _, name in WRONG} | {"registration"}


def test_a_plugin_that_imports_torch_to_say_its_names_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("")  # in the kit's subprocess it is found first
    (tmp_path / "eager_zoo.py").write_text(
        "import torch\nfrom simsiam_zoo.plugin import hookimpl\n"
        "@hookimpl\ndef zoo_components():\n    return ()\n"
    )
    metadata = tmp_path / "eager_zoo-0.1.dist-info"
    metadata.mkdir()
    for name, text in METADATA.items():
        (metadata / name).write_text(text.replace("wrong", "eager"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(SELECTION, "eager-zoo")
    (plugin,) = components_of("eager-zoo")
    found = failures(plugin, set())
    assert "importing eager_zoo imports torch" in found["registration"]
    (tmp_path / "eager_zoo.py").write_text(
        (tmp_path / "eager_zoo.py").read_text().replace("import torch\n", "")
    )
    assert failures(plugin, set()) == {}


def test_a_part_may_say_that_it_is_not_compilable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrong_parts.Compile, "compilable", False)
    (compile_check,) = (c for c in checks_of("predictor") if c.name == "compile")
    with pytest.raises(Inapplicable, match="says that it is not compilable"):
        compile_check.on(component("predictor", "compile"))
    siamese = ConformanceBench(component("predictor", "compile")).siamese
    assert siamese.compilable_parts() == [siamese.backbone, siamese.projector]


def test_what_needs_something_that_is_not_here_is_skipped() -> None:
    shards = next(s for s in components_of("simsiam-zoo") if s.label == "dataset shards")
    for check in checks_of("dataset", fast=True)[-1:]:
        with pytest.raises(Inapplicable, match="needs a path"):
            check.on(shards)


_HEAVY = ("backbone resnet18_cifar", "backbone resnet50_cifar", "dataset mnist-5k")
BUILT_IN = [s.label for s in components_of("simsiam-zoo") if s.label not in _HEAVY]


@pytest.mark.parametrize("label", BUILT_IN)
def test_the_built_in_components_conform(label: str) -> None:
    narrow = ["projector:mlp:hidden_dim=64,out_dim=32"]  # bf16 is slow on most CPUs
    one = next(s for s in components_of("simsiam-zoo", narrow) if s.label == label)
    assert failures(one, {"run", "compile", "jobs"}) == {}


def test_a_family_stands_or_falls_with_the_member_that_is_asked_for() -> None:
    labels = [s.label for s in components_of("simsiam-zoo", ["backbone:timm:test_vit"])]
    assert "backbone test_vit" in labels
    assert "backbone test_resnet" not in labels
    assert "backbone test_resnet" in BUILT_IN


def test_a_distribution_without_a_plugin_is_told_with_the_nearest() -> None:
    with pytest.raises(InputError, match="there is no plugin of wrong-zo here") as caught:
        list(components_of("wrong-zo"))
    assert caught.value.hint == "Did you mean wrong-zoo?"
