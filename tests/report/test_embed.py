from __future__ import annotations

import io
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from simsiam_zoo.cli import root
from simsiam_zoo.data.decode import decode
from simsiam_zoo.data.image import center
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import DataError, InputError, PluginError
from simsiam_zoo.report.features import embed, open_network, open_run_data, write_features
from simsiam_zoo.training.run import load


def zoo(*words):
    """The command line, in this process; errors are raised."""
    done = CliRunner().invoke(root, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("of", ["backbone", "z", "p"])
def test_features_are_those_that_the_plain_modules_give_the_image_files(seen_run, tmp_path, of):
    """Against the modules themselves, on pixels that Pillow and NumPy prepare."""
    out = tmp_path / "features.npz"
    zoo("embed", seen_run, "--out", out, "--of", of, "--split", "test")
    found = np.load(out, allow_pickle=False)

    run = load(seen_run)
    pixels = torch.from_numpy(by_hand(run)).permute(0, 3, 1, 2)
    mean, std = (
        torch.tensor(t).view(1, 3, 1, 1) for t in (run.recipe.data.mean, run.recipe.data.std)
    )
    model = run.model
    with torch.no_grad():
        expected = model.backbone(((pixels / 255 - mean) / std).float())
        if of != "backbone":
            expected = model.projector(expected)
        if of == "p":
            expected = model.predictor(expected)
    torch.testing.assert_close(torch.from_numpy(found["features"]), expected, rtol=1e-4, atol=1e-4)


def by_hand(run):
    """Evaluation's views of the test images, [N, S, S, 3], once Pillow's agree with them.

    Pillow rounds in fixed point when it enlarges: they may be one level apart.
    """
    test, size = run.recipe.part("dataset").create().test, run.recipe.data.image_size
    files = [bytes(test.read(id).image) for id in range(len(test))]
    images = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
    pillow = [np.asarray(i.resize((size, size), Image.Resampling.BILINEAR), int) for i in images]
    ours = np.stack([center(decode(file), size) for file in files])
    assert np.abs(ours - np.stack(pillow)).max() <= 1
    return ours


def test_every_image_has_a_row_that_names_it(seen_run, tmp_path):
    out = tmp_path / "features.npz"
    told = json.loads(zoo("embed", seen_run, "--out", out, "--json"))
    found = np.load(out, allow_pickle=False)

    dataset = open_run_data(load(seen_run))
    assert told["images"] == {"train": 96, "test": 64}
    assert found["features"].shape == (160, told["width"])
    assert found["split"].tolist() == ["train"] * 96 + ["test"] * 64
    assert found["ids"].tolist() == [*range(96), *range(64)]
    assert found["key"].tolist() == [f"{i:04d}" for i in found_keys(dataset)]
    assert found["labels"].tolist() == [*dataset.train.labels(), *dataset.test.labels()]
    assert set(found["shard"][:96]) == {p.name for p in dataset.train.paths}
    assert found["classes"].tolist() == list(dataset.classes)
    metadata = json.loads(str(found["metadata"]))
    assert metadata["run"] == load(seen_run).lock["identity"]
    assert metadata["transform"]["image_size"] == 16
    assert metadata["data"]["test"] == dataset.test.digest


def found_keys(dataset):
    return [int(s.read(i).key) for s in (dataset.train, dataset.test) for i in range(len(s))]


def test_unlabelled_images_are_embedded_with_label_minus_one(seen_run, unlabelled, tmp_path):
    out = tmp_path / "features.npz"
    zoo("embed", seen_run, "--data", unlabelled, "--out", out)
    found = np.load(out, allow_pickle=False)
    assert set(found["labels"]) == {-1}
    assert len(found["classes"]) == 0
    assert np.isfinite(found["features"]).all()


def test_a_damaged_image_stops_it_or_is_left_out_and_named(seen_run, damaged, tmp_path):
    out = tmp_path / "features.npz"
    with pytest.raises(DataError, match="bad"):
        zoo("embed", seen_run, "--data", damaged, "--out", out)
    assert not list(tmp_path.glob("*.npz*"))
    told = json.loads(
        zoo("embed", seen_run, "--data", damaged, "--out", out, "--skip-damaged", "--json")
    )
    assert told["images"] == {"train": 5}
    assert [name.endswith("bad") for name in told["damaged"]] == [True]
    assert "bad" not in np.load(out)["key"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--out", "features.csv"], ".npz or .parquet"),
        (["--out", "nowhere/features.npz"], "there is no folder"),
        (["--out", "x.npz", "--data", "./nowhere"], "nowhere"),
        (["--out", "x.npz", "--device", "cuda:77"], "device"),
    ],
)
def test_what_cannot_be_done_is_refused_before_a_file_is_there(
    seen_run, tmp_path, monkeypatch, words, part
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=part):
        zoo("embed", seen_run, *words)
    assert not list(tmp_path.iterdir())


def test_parquet_without_pyarrow_names_the_extra(seen_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PluginError, match=r"simsiam-zoo\[parquet\]") as told:
        zoo("embed", seen_run, "--out", tmp_path / "features.parquet")
    assert told.value.exit_code == 3


def test_parquet_holds_the_same_as_npz(seen_run, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="extra: parquet")
    run = load(seen_run)
    shards = open_run_data(run).test
    embedding = embed(open_network(run), shards)
    for name in ("f.npz", "f.parquet"):
        splits = [("test", embedding)]
        write_features(tmp_path / name, splits, "0123456789", {"of": "backbone"})
    arrow = parquet.read_table(tmp_path / "f.parquet")
    npz = np.load(tmp_path / "f.npz", allow_pickle=False)
    np.testing.assert_array_equal(np.stack(arrow["features"].to_numpy()), npz["features"])
    assert arrow["key"].to_pylist() == npz["key"].tolist()
    assert arrow["label"].to_pylist() == npz["labels"].tolist()
    assert arrow["class"].to_pylist() == [str(label) for label in npz["labels"]]
    metadata = json.loads(arrow.schema.metadata[b"simsiam_zoo"])
    assert metadata["format"] == "simsiam-zoo features"
    assert metadata["of"] == "backbone"


def test_embedding_leaves_the_run_as_it_was_and_takes_features_once(seen_run, tmp_path, reads):
    def content():
        return {p: p.read_bytes() for p in seen_run.rglob("*") if p.is_file()}

    before = content()
    zoo("embed", seen_run, "--out", tmp_path / "features.npz", "--of", "z")
    after = content()
    assert {path: after[path] for path in before} == before
    assert {path.relative_to(seen_run).parts[0] for path in after.keys() - before.keys()} <= {
        "features"
    }
    reads.clear()
    zoo("embed", seen_run, "--out", tmp_path / "again.npz", "--of", "z")
    assert not reads
    first, again = (np.load(tmp_path / f"{name}.npz") for name in ("features", "again"))
    assert all((first[name] == again[name]).all() for name in first.files)


def test_features_that_an_evaluation_took_are_not_taken_again(seen_run, tmp_path, reads):
    run = shutil.copytree(seen_run, tmp_path / "run", symlinks=True)
    shutil.rmtree(run / "features", ignore_errors=True)
    zoo("evaluate", run, "--protocol", "knn:k=5")
    assert len(reads) == 2
    zoo("embed", run, "--out", tmp_path / "features.npz")
    zoo("look", run)
    assert len(reads) == 2


def test_of_a_run_that_cannot_be_written_features_are_kept_elsewhere(
    seen_run, tmp_path, monkeypatch
):
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("simsiam_zoo.evaluation.target.os.access", lambda path, mode: False)
    zoo("embed", seen_run, "--out", tmp_path / "features.npz")
    assert len(list((tmp_path / "cache").glob("features/*/x.f32"))) == 2


def test_some_images_are_those_of_all(seen_run):
    train = open_run_data(load(seen_run)).train
    ids = np.array([3, 17, 40, 95])
    alone, whole = (
        embed(open_network(load(seen_run)), train, ids),
        embed(open_network(load(seen_run)), train),
    )
    assert alone.ids.tolist() == ids.tolist()
    assert torch.equal(alone.labels, whole.labels[torch.from_numpy(ids)])
    # other batches add in another order
    torch.testing.assert_close(alone.x, whole.x[torch.from_numpy(ids)])


def test_a_folder_with_training_images_alone_has_no_test_split(seen_run, unlabelled, tmp_path):
    assert open_shards(str(unlabelled)).test is None
    with pytest.raises(InputError, match="no test images"):
        zoo("embed", seen_run, "--data", unlabelled, "--split", "test", "--out", tmp_path / "x.npz")
