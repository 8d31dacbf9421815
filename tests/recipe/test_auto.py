"""What `auto` comes to by the data, and which preset and name a run of one's own images has."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simsiam_zoo.data.decode import decode
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset, png
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe, auto
from simsiam_zoo.recipe.auto import measure
from simsiam_zoo.recipe.naming import preset_for
from simsiam_zoo.recipe.recipe import DEFAULT_PRESET

Make = Callable[..., Path]


@pytest.fixture
def shards(tmp_path: Path) -> Make:
    """`shards("name", labels, test, size)`: random images of the side `size` as shards."""

    def make(
        name: str, labels: list[int], test: list[int] | None = None, size: int = 12, seed: int = 0
    ) -> Path:
        generator = np.random.default_rng(seed)

        def samples(labels: list[int]) -> list[PackedSample]:
            shape = (size, size + 3, 3)
            return [
                PackedSample(f"{i:04d}", png(generator.integers(0, 256, shape, np.uint8)), "png", y)
                for i, y in enumerate(labels)
            ]

        folder = tmp_path / name
        folder.mkdir()
        splits = {"train": samples(labels)} | ({"val": samples(test)} if test else {})
        pack_dataset(folder, splits, None, shard_size=7)
        return folder

    return make


def photos(folder: Path, **settings: object) -> Recipe:
    return Recipe.make("photos", None, {"dataset": str(folder), **settings})


def test_other_channels_are_refused_also_where_the_data_was_measured_before(shards: Make) -> None:
    folder = shards("data", [-1] * 23)
    assert len(photos(folder).data.mean) == 3
    with pytest.raises(InputError, match="have 3 channels"):
        photos(folder, **{"data.channels": 1})


def test_mean_and_std_are_those_of_the_pixels(shards: Make) -> None:
    train = open_shards(str(shards("data", [-1] * 23))).train
    pixels = np.stack([decode(train.read(i).image) for i in range(23)]).reshape(-1, 3) / 255
    found = measure(train)
    np.testing.assert_allclose(found.mean, pixels.mean(0), atol=5.1e-5)
    np.testing.assert_allclose(found.std, pixels.std(0), atol=5.1e-5)
    assert found.short_side == 12


def test_five_channels_of_16_bits_are_measured(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 65536, (6, 9, 9, 5), np.uint16)
    samples = []
    for i, array in enumerate(arrays):
        np.save(file := io.BytesIO(), array)
        samples.append(PackedSample(f"{i}", file.getvalue(), "npy"))
    pack_dataset(tmp_path, {"train": samples}, None)
    data = photos(tmp_path, **{"data.channels": 5, "augmentation": "cifar:hue=0"}).data
    pixels = arrays.reshape(-1, 5) / 65535
    np.testing.assert_allclose(data.mean, pixels.mean(0), atol=5.1e-5)
    np.testing.assert_allclose(data.std, pixels.std(0), atol=5.1e-5)


def test_a_recipe_is_complete_and_what_it_was_is_read_back(shards: Make, tmp_path: Path) -> None:
    folder = shards("data", [-1] * 23)
    recipe = photos(folder)
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    shards("other", [-1] * 9)
    (folder / "manifest.json").unlink()  # it is not looked at again
    assert Recipe.of_run(tmp_path / "recipe.toml") == recipe
    text = recipe.to_toml()
    for key in ("image_size", "mean", "std", "validation", "epochs", "batch_size"):
        assert f'\n{key} = "auto"' not in text


@pytest.mark.parametrize(
    ("count", "batch", "epochs"),
    [(2, 2, 500), (5, 2, 500), (40, 16, 500), (60, 16, 334), (128, 64, 500), (700, 64, 100)],
)
def test_batch_and_epochs_follow_from_the_number_of_images(count, batch, epochs, shards) -> None:
    training = photos(shards("data", [-1] * count, size=4)).training
    assert (training.batch_size, training.epochs) == (batch, epochs)


@pytest.mark.parametrize(("side", "size"), [(8, 32), (63, 32), (64, 64), (100, 96), (300, 96)])
def test_the_image_size_follows_from_the_images(side: int, size: int, shards: Make) -> None:
    assert photos(shards("data", [-1] * 4, size=side)).data.image_size == size


def test_what_is_stated_is_not_chosen(shards: Make) -> None:
    stated = {"data.image_size": 48, "training.epochs": 3, "data.mean": [0.1, 0.2, 0.3]}
    recipe = photos(shards("data", [-1] * 40), **stated)
    assert (recipe.data.image_size, recipe.training.epochs) == (48, 3)
    assert recipe.data.mean == (0.1, 0.2, 0.3)
    arm = photos(shards("arm", [-1] * 200, size=4), **{"training.batch_size": 100})
    assert arm.training.epochs == 334  # as with the batch of 64: arms have the same epochs


@pytest.mark.parametrize(
    ("labels", "test", "share"),
    [
        ([0, 1] * 20, None, 0.2),
        ([0, 1] * 20, [0, 1], 0.0),
        ([-1] * 40, None, 0.0),
        ([0] * 40, None, 0.0),
        ([0, 1, -1] * 10, None, 0.0),
        (list(range(10)), None, 0.0),  # a class would have none left
    ],
)
def test_labelled_images_without_test_images_are_held_out(labels, test, share, shards) -> None:
    recipe = photos(shards("data", labels, test))
    assert recipe.data.validation == share


def test_images_that_are_held_out_decide_nothing(shards: Make, capsys, monkeypatch) -> None:
    monkeypatch.setattr(auto, "_known", {})
    folder = shards("data", [0, 1] * 20)
    recipe = photos(folder)
    data = recipe.open_data()
    assert data.measured_on == "validation"
    assert recipe.data.mean == measure(data.train).mean != measure(open_shards(str(folder)).train)
    assert "20% of the images are held out" in capsys.readouterr().err
    photos(folder)
    Recipe.make("digits", None, {"data.validation": "auto"})
    assert capsys.readouterr().err == ""  # said once, and nothing where nothing was chosen


def test_without_data_auto_is_refused_or_left_open(shards: Make) -> None:
    with pytest.raises(InputError, match="needs a path"):
        Recipe.make("photos")
    assert Recipe.make("photos", measure=False).data.image_size == 32
    with pytest.raises(InputError, match="no data at"):
        Recipe.make("photos", None, {"dataset": "./nowhere"})
    with pytest.raises(InputError, match=r"counted images(.|\n)*without data.stream"):
        photos(shards("data", [-1] * 9), **{"data.stream": True, "data.steps_per_epoch": 2})
    with pytest.raises(InputError, match="image_sise"):
        Recipe.make("photos", None, {"dataset": "./nowhere", "data.image_sise": 3})
    with pytest.raises(InputError, match="image_size"):
        Recipe.make("digits", None, {"data.image_size": "automatic"})


def test_any_preset_may_say_auto_and_it_works_in_an_arm_with_changes(shards: Make) -> None:
    change = [{"epoch": 0.5, "gradient": "none"}]
    recipe = Recipe.make("digits", None, {"training.epochs": "auto", "change": change})
    assert recipe.training.epochs == 48
    assert recipe.change[0].epoch == 24


@pytest.mark.parametrize(
    ("settings", "preset"),
    [
        ({}, "mnist-5k"),
        ({"optim.lr": 1.0}, "mnist-5k"),
        ({"dataset": "mnist-5k"}, "mnist-5k"),
        ({"dataset": "digits"}, "digits"),
        ({"dataset": {"name": "shards", "path": "./photos"}}, "photos"),
        ({"dataset.path": "./photos"}, "photos"),
        ({"dataset": "nothing-like-it"}, "photos"),
    ],
)
def test_the_preset_of_data_for_which_none_is_named(settings, preset: str) -> None:
    assert preset_for(settings, DEFAULT_PRESET) == preset


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("./my photos/", "my-photos"),
        ("/data/Vögel", "Vögel"),
        ("./birds.tar.gz", "birds"),
        ("./FASHION/train-{000..004}.tar", "FASHION"),
        ("s3://bucket/birds", "birds"),
        ("...", "shards"),
    ],
)
def test_a_runs_name_says_its_data(path: str, word: str, tmp_path: Path, monkeypatch) -> None:
    recipe = Recipe.make("digits", None, {"dataset": {"name": "shards", "path": path}})
    assert recipe.run_name() == f"digits-{word}-seed0"
    monkeypatch.chdir(tmp_path)
    here = Recipe.make("digits", None, {"dataset": "."}).run_name()
    assert here == f"digits-{tmp_path.name}-seed0"
    assert (
        Recipe.make("digits", None, {"dataset": "mnist-5k"}).run_name() == "digits-mnist-5k-seed0"
    )
    assert Recipe.make("imagenet").run_name() == "imagenet-seed0"
