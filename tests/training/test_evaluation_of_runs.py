"""`simsiam-zoo evaluate` on runs: what the training found, from features taken once."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from simsiam_zoo.charts.drawing import evaluation_sheet
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation import frozen_pass
from simsiam_zoo.evaluation.evaluate import evaluate, new_report_path, write_report
from simsiam_zoo.evaluation.target import open_target
from simsiam_zoo.training.run import train


def report_of(source: str, settings: dict[str, object] | None = None, preset=None) -> Any:
    return evaluate(open_target(source, settings, preset))


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run", symlinks=True))


def test_it_finds_what_the_training_found_and_changes_nothing_that_was_there(run):
    before = files(run)
    report = report_of(str(run))
    keys = ("protocol", "protocol_version", "top1", "top1_interval", "top5", "test_images")
    found = [{key: figure[key] for key in keys} for figure in report["figures"]]
    stated = json.loads((run / "result.json").read_text())["figures"]
    assert found == [{key: figure[key] for key in keys} for figure in stated]
    assert len(found) == 3  # knn twice, logistic
    after = files(run)
    assert {name: after[name] for name in before} == before
    assert {Path(name).parts[0] for name in after.keys() - before.keys()} == {"features"}


def test_the_checkpoint_and_the_exported_backbone_are_the_same_network(run):
    whole = report_of(str(run))
    for source in ("checkpoints/last.pt", "backbone.safetensors"):
        other = report_of(str(run / source))
        assert other["weights"] == whole["weights"]
        assert other["figures"] == whole["figures"]


def test_a_report_counts_every_image_once(run, tmp_path):
    report = report_of(str(run), {"evaluation.protocols": ["knn:k=3"]})
    (figure,) = report["figures"]
    confusion = figure["confusion"]
    assert sum(map(sum, confusion)) == 64 == report["data"]["test_images"]
    assert sum(confusion[i][i] for i in range(10)) / 64 == pytest.approx(figure["top1"], abs=1e-6)
    assert figure["per_class"][3] == pytest.approx(confusion[3][3] / sum(confusion[3]), abs=1e-6)
    path = new_report_path(run)
    write_report(report, path)
    assert json.loads(path.read_text()) == report
    assert (path.name, new_report_path(run).name) == ("1.json", "2.json")
    assert new_report_path(run).name == "3.json"  # for another process at the same time
    drawn = ElementTree.fromstring(evaluation_sheet(report))
    texts = [element.text for element in drawn.iter() if element.text]
    assert any(f"top-1 {100 * figure['top1']:.1f} %" in text for text in texts)
    (image,) = [element for element in drawn.iter() if element.tag.endswith("image")]
    with Image.open(io.BytesIO(base64.b64decode(image.get("href").partition(",")[2]))) as matrix:
        darkest = np.asarray(matrix.convert("L")).argmin(axis=1)  # of each class
    assert (darkest == np.argmax(confusion, axis=1)).all()


def counted(monkeypatch) -> list[str]:
    """Which passes read images from now on."""
    read: list[str] = []
    real = frozen_pass.EvalLoader.__iter__

    def iterate(self):
        read.append("pass")
        return real(self)

    monkeypatch.setattr(frozen_pass.EvalLoader, "__iter__", iterate)
    return read


def test_features_are_taken_once_and_a_damaged_or_half_written_file_again(run, monkeypatch):
    first = report_of(str(run))["figures"]
    read = counted(monkeypatch)
    assert report_of(str(run), {"evaluation.protocols": ["knn"]})["figures"] == first[:2]
    assert not read  # also where other protocols are asked for
    entries = sorted((run / "features").glob("*/x.f32"))
    assert len(entries) == 2
    entries[1].write_bytes(entries[1].read_bytes()[:-4])
    assert report_of(str(run))["figures"] == first
    assert len(read) == 1
    images = entries[0].parent / "images.npz"
    content = bytearray(images.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    images.write_bytes(content)
    assert report_of(str(run))["figures"] == first
    assert len(read) == 2
    images.unlink()
    assert report_of(str(run))["figures"] == first
    assert len(read) == 3
    assert not list((run / "features").glob(".*"))


def test_another_transform_or_arithmetic_is_another_key(run, monkeypatch):
    report_of(str(run))
    read = counted(monkeypatch)
    for settings in ({"evaluation.crop": 0.8}, {"training.precision": "fp64"}):
        report_of(str(run), {**settings, "evaluation.protocols": ["knn"]})
    assert len(read) == 4


def shards(folder: Path, train: list[int], test: list[int] | None) -> dict[str, object]:
    from io import BytesIO

    file = BytesIO()
    Image.new("L", (8, 8), 99).save(file, "PNG")

    def samples(labels: list[int]) -> list[PackedSample]:
        return [PackedSample(f"{i}", file.getvalue(), "png", x) for i, x in enumerate(labels)]

    splits = {"train": samples(train)} | ({} if test is None else {"val": samples(test)})
    folder.mkdir()
    pack_dataset(folder, splits, None)
    return {"dataset": str(folder)}


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        ([-1, -1, -1], None, "3 of the 3 training images have no label"),
        ([0, 1, 2], None, "there are no test images"),
        ([0, -1, 1], [0, 1], "1 of the 3 training images have no label"),
        ([0, 1, 1], [-1, -1], "2 of the 2 test images have no label"),
        ([2, 2, 2], [2, 2], "all of one class"),
        ([0, 1, 1], [0, 3], "labels up to 3, the training images up to 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_a_feature_is_taken(
    run, tmp_path, monkeypatch, train, test, words
):
    read = counted(monkeypatch)
    with pytest.raises(InputError, match=words):
        report_of(str(run), shards(tmp_path / "shards", train, test))
    assert not read


def test_a_model_of_timms_at_random_needs_data_and_says_what_it_is(
    digit_shards, monkeypatch, tmp_path
):
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path))
    source = "timm:test_resnet:pretrained=false"
    with pytest.raises(InputError, match="--data"):
        open_target(source)
    settings = {"dataset": str(digit_shards), "evaluation.protocols": ["knn:k=5"]}
    report = report_of(source, {**settings, "training.threads": 1}, "digits")
    assert report["network"] == "timm:test_resnet at random"
    assert report["transform"]["image_size"] == 24
    assert list((tmp_path / "features").glob("*/x.f32"))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere", "no run, checkpoint or model"),
        ("timm:resnet999", "resnet"),
        ("timm:resnet18:k=1", "pretrained"),
    ],
)
def test_a_source_that_is_none_is_refused(source, words):
    with pytest.raises(InputError, match=words):
        report_of(source, {"dataset": "digits"})


def test_a_run_may_end_with_the_papers_linear_evaluation(tiny, tmp_path) -> None:
    """Of the trained network alone: the baselines would take as long again, each."""
    protocols = ["knn:k=5", "linear-paper:epochs=2"]
    result = train(tiny({"evaluation.protocols": protocols}), tmp_path / "run", quiet=True)
    measured = {figure["network"] for figure in result.figures if "linear" in figure["protocol"]}
    assert measured == {"trained network"}
