"""Views of several sizes: what the augmentation states is what is drawn, by whomever."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from made_images import random_png

from simsiam_zoo.components.augmentations import DigitsAugmentation
from simsiam_zoo.data.batches import draw_view, view_sizes
from simsiam_zoo.data.decode import decode
from simsiam_zoo.data.draws import Draws
from simsiam_zoo.data.image import ViewParams, center, render_view
from simsiam_zoo.data.inspection import contact_sheet
from simsiam_zoo.data.loader import TrainLoader
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import InputError, PluginError

SIZES = (16, 16, 8, 12, 12, 16)
PLAIN = DigitsAugmentation(min_scale=0.4, rotation=15, shear=0.3, brightness=0.4, contrast=0.4)


class Sized(DigitsAugmentation):
    def view_sizes(self, size: int) -> list[int]:
        return [size, size, size // 2, size * 3 // 4, size * 3 // 4, size]


SIZED = Sized(min_scale=0.4, rotation=15, shear=0.3, brightness=0.4, contrast=0.4)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("packed")
    samples = [PackedSample(str(i), random_png(i), "png", i) for i in range(24)]
    pack_dataset(folder, {"train": samples}, None)
    return open_shards(str(folder)).train


def loader(shards: ShardSet, **options: object) -> TrainLoader:
    plan = SampleOrder(shards.counts, seed=1, batch=8)
    given = {"augmentation": SIZED, "views": 0, "seed": 5, "epochs": 3, **options}
    return TrainLoader(shards, plan, image_size=16, **given)


def test_each_view_is_the_one_drawn_for_its_number_at_its_size(shards: ShardSet) -> None:
    draws = Draws(5)
    for batch in loader(shards):
        assert [view.shape[-1] for view in batch.views] == list(SIZES)
        for number, view in enumerate(batch.views):
            for pixels, id in zip(
                view.permute(0, 2, 3, 1).numpy(), batch.ids.tolist(), strict=True
            ):
                image = decode(shards.read(id).image)
                drawn = SIZED.sample(draws.at(batch.epoch, id, number), number, image.shape[:2])
                assert (pixels == render_view(image, drawn, SIZES[number])).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_send_all_sizes_through_their_slots(shards: ShardSet, workers: int) -> None:
    kept = list(loader(shards, workers=workers))
    for ours, theirs in zip(kept, loader(shards), strict=True):
        assert torch.equal(ours.ids, theirs.ids)
        assert all(map(torch.equal, ours.views, theirs.views))
        copy = pickle.loads(pickle.dumps(ours))
        assert all(map(torch.equal, copy.views, theirs.views))


def test_views_of_the_usual_size_are_those_of_a_run_that_has_no_others(shards: ShardSet) -> None:
    """What is drawn for a view depends on its number, not on how many follow it."""
    plain = loader(shards, augmentation=PLAIN, views=2)
    for sized, pair in zip(loader(shards), plain, strict=True):
        assert all(map(torch.equal, sized.views[:2], pair.views))


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (lambda: ViewParams((-1, 0, 4, 4)), r"drew the crop \(-1, 0, 4, 4\) of an image of 8 x 6"),
        (lambda: ViewParams((0, 0, 6, 8)), r"drew the crop \(0, 0, 6, 8\)"),
        (lambda: (0, 0, 4, 4), "Wrong failed on an image of 8 x 6: AttributeError"),
        (lambda: 1 // 0, "ZeroDivisionError"),
    ],
)
def test_an_augmentation_that_gives_no_crop_of_the_image_is_told(drawn, said) -> None:
    class Wrong:
        def sample(self, generator, view, size):
            return drawn()

    with pytest.raises(PluginError, match=said):
        Draws(0).params(Wrong(), 0, 0, 0, (6, 8))


def test_an_augmentations_own_apply_that_fails_is_told() -> None:
    class Wrong:
        def apply(self, image, view, size):
            return image[:size, : size - 1]

    image, slot = np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(PluginError, match=r"Wrong.apply failed on an image \[8, 8, 3\]: Value"):
        draw_view(Wrong().apply, image, ViewParams((0, 0, 8, 8)), slot)


def test_the_number_of_views_is_agreed_on() -> None:
    assert view_sizes(PLAIN, 32, 4) == (32,) * 4
    assert view_sizes(SIZED, 16, 0) == view_sizes(SIZED, 16, 6) == SIZES
    with pytest.raises(InputError, match=r"gives 6 views of each image, .* compares 2"):
        view_sizes(SIZED, 16, 2)
    with pytest.raises(InputError, match="states no number"):
        view_sizes(PLAIN, 16, 0)


def test_the_sheet_shows_small_views_framed(shards: ShardSet) -> None:
    sheet = np.asarray(contact_sheet(shards, SIZED, 96, seed=5, rows=1, epochs=4))
    assert sheet.shape == (100, 100 * (1 + len(SIZES)), 3)  # one epoch's
    image = decode(shards.read(0).image)
    assert (sheet[:96, :96] == center(image, 96)).all()
    drawn = SIZED.sample(Draws(5).at(0, 0, 2), 2, image.shape[:2])
    cell = sheet[:96, 300:396]
    assert (cell[24:72, 24:72] == render_view(image, drawn, 48)).all()
    assert (cell[:24] == 255).all()
    assert (cell[72:] == 255).all()
