"""`simsiam-zoo evaluate` as a user types it: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tiny_runs import digits

from simsiam_zoo.cli import main
from simsiam_zoo.data.packing.writer import pack_dataset

Evaluate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def evaluate(tiny_run, tmp_path, monkeypatch, capsys) -> Evaluate:
    """`evaluate("run", "--json")` → exit code, stdout, stderr; in a folder that holds `run`."""
    shutil.copytree(tiny_run, tmp_path / "run", symlinks=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "cache"))

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            main(["evaluate", *words])
        said = capsys.readouterr()
        return int(done.value.code or 0), said.out, said.err

    return call


def test_figures_are_printed_with_protocol_and_version_and_numbered_beside_the_run(evaluate):
    for number in (1, 2):
        code, out, err = evaluate("run", "--protocol", "knn:k=20")
        assert (code, err) == (0, "")
        report = json.loads(Path(f"run/evaluations/{number}.json").read_text())
        (figure,) = report["figures"]
        line = next(line for line in out.splitlines() if "knn (k=20, t=0.1)" in line)
        assert line.split()[3:5] == [str(figure["protocol_version"]), f"{100 * figure['top1']:.1f}"]
        assert f"run/evaluations/{number}.json" in out
        assert f"run/evaluations/{number}.svg" in out


def test_json_is_the_report_and_all_there_is_on_stdout(evaluate):
    code, out, err = evaluate("run", "--protocol", "knn:k=20", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads(Path("run/evaluations/1.json").read_text())


def test_out_is_where_the_report_and_its_picture_go(evaluate):
    assert evaluate("run", "--protocol", "knn:k=20", "--out", "mine.json")[0] == 0
    assert json.loads(Path("mine.json").read_text())["source"] == "run"
    assert ElementTree.parse("mine.svg").getroot().tag.endswith("}svg")
    assert not Path("run/evaluations").exists()


def test_a_model_of_timms_has_no_folder_and_is_only_shown(evaluate, digit_shards):
    source = "timm:test_resnet:pretrained=false"
    words = (source, "--data", str(digit_shards), "--preset", "digits", "--protocol", "knn:k=5")
    code, out, _ = evaluate(*words)
    assert code == 0
    assert "timm:test_resnet at random" in out
    assert ".json" not in out
    assert {path.name for path in Path().iterdir()} == {"run", "cache"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "there is no run, checkpoint or model 'nowhere'"),
        (["timm:resnet81", "--data", "digits"], "Did you mean resnet18"),
        (["timm:resnet18"], "Say --data"),
        (["run", "--data", "./nowhere"], "no data at ./nowhere"),
        (["run", "--data", "mnist5k"], "Did you mean mnist-5k?"),
        (["run", "--protocol", "linaer"], "Did you mean linear"),
        (["run", "--protocol", "knn:neighbours=3"], "It takes k, "),
        (["run", "--protocol", "knn:k=0"], "int >= 1"),
        (["run", "--preset", "digits"], "its own recipe, so no --preset"),
        (["run", "--device", "cuda:77"], "cuda:77"),
        (["run", "--precision", "fp17"], "'bf16'"),
        (["run", "--batch-size", "0"], "--batch-size"),
        (["run", "--out", "nowhere/report.json"], "there is no folder nowhere"),
        (["run", "--out", "report.png"], "a report is written as .json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_ends_with_2_says_the_way_out_and_writes_nothing(evaluate, words, message):
    before = {*Path().rglob("*")}
    code, out, err = evaluate(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert {*Path().rglob("*")} == before


def test_unlabelled_images_end_with_2_before_a_feature_is_taken(evaluate, tmp_path):
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    samples = digits(32, labelled=False)
    pack_dataset(folder, {"train": samples[:24], "val": samples[24:]}, None)
    code, _, err = evaluate("run", "--data", "./unlabelled")
    assert code == 2
    assert "24 of the 24 training images have no label" in err
    assert not Path("run/features").exists()


@pytest.mark.parametrize("name", ["backbone.safetensors", "checkpoints/last.pt"])
def test_damaged_weights_end_with_4_and_are_named(evaluate, name):
    path = Path("run") / name
    path.write_bytes(path.read_bytes()[:-1000])
    code, out, err = evaluate(str(path))
    assert (code, out) == (4, "")
    assert f"run/{name}" in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(evaluate):
    code, _, err = evaluate("nowhere", "--debug")
    assert code == 2
    assert "Traceback" in err
