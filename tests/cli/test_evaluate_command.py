"""`simsiam-zoo evaluate` as a user types it: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tiny_runs import digits, pack_digits

from simsiam_zoo.cli import main
from simsiam_zoo.cli.text import print_reports
from simsiam_zoo.data.packing.writer import pack_dataset
from simsiam_zoo.metrics import top1_by_data

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
        (["run", "--device", "gpu"], "'gpu': it is auto, cpu, cuda, cuda:N or mps"),
        (["run", "--precision", "fp17"], "'bf16'"),
        (["run", "--batch-size", "0"], "--batch-size"),
        (["run", "--validation", "1.5"], "data.validation"),
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


def test_several_data_sets_make_one_table_with_the_untrained_network_beside(evaluate, tmp_path):
    """Each has the figures that it has alone; the untrained network's are those of the run."""
    other = pack_digits(tmp_path / "other", tuple("0123456789"), first=200)
    asked = (str(tmp_path / "own"), str(other))
    pack_digits(tmp_path / "own", tuple("0123456789"))
    words = [word for each in asked for word in ("--data", each)]
    code, out, err = evaluate("run", *words, "--protocol", "knn", "--json", "--out", "all.json")
    assert (code, err) == (0, "")
    whole = json.loads(out)
    assert whole == json.loads(Path("all.json").read_text())
    assert [each["asked"] for each in whole["reports"]] == [*asked]
    for number, report in enumerate(whole["reports"], start=1):
        kept = json.loads(Path(f"run/evaluations/{number}.json").read_text())
        assert kept["figures"] == report["figures"]
        again = ("run", "--data", report["asked"], "--protocol", "knn", "--json")
        alone = json.loads(evaluate(*again)[1])
        assert "untrained" not in alone
        assert alone["figures"] == report["figures"]
    trained, untrained = (whole["reports"][0][key][0]["top1"] for key in ("figures", "untrained"))
    gain = json.loads(Path("run/result.json").read_text())["evidence"]["knn_gain_interval"][1]
    assert trained - untrained == pytest.approx(gain)
    first, second = (f"{100 * each['untrained'][0]['top1']:.1f} %" for each in whole["reports"])
    code, out, _ = evaluate("run", *words, "--protocol", "knn")
    table = out.partition("Top-1 of the untrained network by data set")[2].splitlines()
    assert table[1].split() == ["own", "other"]
    assert table[2].split("  ")[1:] == ["knn (k=20, t=0.1)", first, second]


def test_the_untrained_network_is_measured_where_that_is_asked_for(evaluate):
    asked = ("run", "--protocol", "knn", "--json")
    report = json.loads(evaluate(*asked, "--untrained")[1])
    trained, untrained = (report[key][0]["top1"] for key in ("figures", "untrained"))
    gain = json.loads(Path("run/result.json").read_text())["evidence"]["knn_gain_interval"][1]
    assert trained - untrained == pytest.approx(gain)
    assert "untrained" not in json.loads(evaluate(*asked, "--no-untrained")[1])
    of_timm = "timm:test_resnet:pretrained=false"
    code, _, err = evaluate(of_timm, "--data", "digits", "--untrained")
    assert code == 2
    assert f"{of_timm} is no run, and has no untrained network" in err


def test_a_part_of_the_training_images_takes_the_place_of_the_test_images(evaluate):
    code, out, _ = evaluate("run", "--validation", "0.25", "--protocol", "knn:k=5", "--json")
    assert code == 0
    data = json.loads(out)["data"]
    counts = data["train_images"], data["test_images"]
    assert (data["measured_on"], *counts) == ("validation", 72, 24)


def test_an_error_of_one_data_set_leaves_the_others_figures(evaluate, tmp_path, digit_shards):
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    samples = digits(32, labelled=False)
    pack_dataset(folder, {"train": samples[:24], "val": samples[24:]}, None)
    words = ["--data", "./unlabelled", "--data", str(digit_shards), "--protocol", "knn:k=5"]
    code, out, err = evaluate("run", *words, "--json")
    assert code == 2
    failed, report = json.loads(out)["reports"]
    assert failed["error"]["exit_code"] == 2
    assert "have no label" in failed["error"]["message"]
    assert report["figures"][0]["protocol"] == "knn (k=5, t=0.1)"
    code, out, err = evaluate("run", *words)
    assert code == 2
    assert "Error: ./unlabelled: 24 of the 24 training images have no label" in err
    assert "knn (k=5, t=0.1)" in out
    code, out, _ = evaluate("run", *words, "--data", "mnist5k")  # before anything is measured
    assert (code, out) == (2, "")


def test_a_table_of_many_data_sets_is_printed_in_parts_that_fit(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"data-set-{n}" for n in range(9)]
    figure = {"protocol": "knn (k=20, t=0.1)", "top1": 0.5}
    reports = [{"asked": f"./{n}/", "figures": [figure]} for n in names]
    print_reports(reports, [None] * 9)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    shown = [word for line in lines for word in line.split() if word.startswith("data-set-")]
    assert shown == names


def test_names_of_a_protocol_that_depend_on_the_data_are_one_row():
    rows = [
        (str(k), [{"protocol": f"p (lr=0.1; code 0.1; batch={k}, t=0.1)", "top1": k / 1000}])
        for k in (200, 80)
    ]
    assert top1_by_data(rows) == [
        ["", "200", "80"],
        ["p (lr=0.1; code 0.1; batch=200/80, t=0.1)", "20.0 %", "8.0 %"],
    ]
