from __future__ import annotations

import json
import subprocess
import sys

import pytest

import simsiam_zoo.cli as cli
from simsiam_zoo.catalog import Catalog, Plugin, catalog
from simsiam_zoo.components.plugin import timm_pretrained
from simsiam_zoo.errors import InputError
from simsiam_zoo.plugin import Component, Family


@pytest.fixture
def listed(capsys):
    def run(*arguments: str) -> list[str]:
        cli.root.main(["list", *arguments, "--json"], standalone_mode=False)
        return [row["call"] for row in json.loads(capsys.readouterr().out)]

    return run


@pytest.fixture
def library(monkeypatch):
    def use(**functions) -> None:
        lib = Family("backbone", "lib", functions.pop("names", lambda: ["vgg"]), "a:b", **functions)
        own = Component("backbone", "own", "a:b", "")
        known = Catalog([Plugin("p", "m", "lib-zoo", "1.0", "v1", components=(lib, own))])
        monkeypatch.setattr("simsiam_zoo.api.names.catalog", lambda: known)

    return use


def test_a_pattern_looks_at_names_and_into_families(listed):
    found = listed("backbones", "CONVNEXT_?ico")
    assert found == ["convnext_pico"]
    assert listed("backbones", "resnet18*") == [
        *("resnet18", "resnet18d"),
        *("resnet18_cifar", "resnet18_fit"),
    ]
    assert set(listed("predictors", "*i*")) == {"fixed-random", "linear"}
    assert listed("losses", "nothing*") == []


def test_what_a_pattern_finds_means_just_that_when_written(listed):
    known = catalog()
    for call in listed("backbones", "*cifar*"):
        assert known.resolve("backbone", call).name == call


def test_a_family_alone_is_each_of_its_names(listed):
    names = listed("--family", "timm")
    assert len(names) == len(catalog().members(catalog().family("backbone", "timm")))
    assert listed("backbones", "densenet1*", "--family", "timm:*") == listed(
        "backbones", "densenet1*"
    )
    with pytest.raises(InputError, match="Did you mean timm"):
        listed("--family", "tim")
    with pytest.raises(InputError, match="There are none"):
        listed("losses", "--family", "timm")


def test_pretrained_leaves_families_names_that_have_weights(listed, library):
    library(names=lambda: ["vgg", "own-vgg", "bare"], pretrained=lambda: ["own-vgg", "vgg", "gone"])
    assert listed("--pretrained") == ["own-vgg", "vgg"]
    assert listed("backbones", "*-vgg", "--pretrained") == ["own-vgg"]
    library()
    assert listed("--pretrained") == []


def test_a_family_that_cannot_say_is_a_line(listed, library):
    library(pretrained=lambda: 1 / 0)
    assert listed("--family", "lib", "--pretrained") == listed("--pretrained") == ["lib:*"]


def test_pretrained_names_are_those_of_timm():
    import timm

    theirs = {name.partition(".")[0] for name in timm.list_models(pretrained=True)}
    assert set(timm_pretrained()) == theirs


def test_filters_import_neither_torch_nor_timm(install_plugins):
    code = """
import sys
from simsiam_zoo.cli import root
root.main(["list", "backbones", "conv*"], standalone_mode=False)
assert not {"torch", "timm", "numpy", "pydantic"} & sys.modules.keys()
"""
    run = subprocess.run([sys.executable, "-c", code], env=install_plugins(), capture_output=True)
    assert run.returncode == 0, run.stderr
    assert b"convnext_tiny" in run.stdout
