"""Views made on the device against the worker's, operation by operation, and torchvision's."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from simsiam_zoo.components.augmentations import DigitsAugmentation, SimSiamAugmentation
from simsiam_zoo.data.device_views import COLUMNS, crop_views, finish_views, write_view
from simsiam_zoo.data.image import ViewParams, render_view
from simsiam_zoo.errors import InputError

LEVELS = 2  # of 255, at most
MEAN = 0.1


def photo(height: int, width: int, channels: int = 3, seed: int = 0):
    """Smooth shapes, edges and noise: [H, W, C] uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    base = 128 + 100 * np.sin(x / 7 + rng.uniform(0, 6)) * np.cos(y / 5)
    image = np.stack([np.roll(base, 5 * c, axis=1) for c in range(channels)], -1)
    image[height // 3 : height // 2, width // 4 :] = rng.integers(0, 256, channels)
    image += rng.normal(0, 25, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def table_of(views):
    table = np.empty((len(views), COLUMNS), np.float32)
    for view, row in zip(views, table, strict=True):
        write_view(view, row)
    return table


def on_device(images, views, size):
    height, width = (max(image.shape[i] for image in images) for i in (0, 1))
    channels = images[0].shape[2]
    padded = torch.zeros(len(images), channels, height, width, dtype=torch.uint8)
    for row, image in zip(padded, images, strict=True):
        row[:, : image.shape[0], : image.shape[1]] = torch.from_numpy(image).permute(2, 0, 1)
    sizes = np.array([image.shape[:2] for image in images])
    table = table_of(views)
    made = finish_views(crop_views(padded, sizes, table, size), table)
    return made.permute(0, 2, 3, 1).numpy()


def by_worker(images, views, size):
    made = [render_view(np.squeeze(i), view, size) for i, view in zip(images, views, strict=True)]
    return np.stack([view.reshape(size, size, -1) for view in made])


def assert_same(ours, theirs):
    apart = np.abs(ours.astype(int) - theirs.astype(int))
    assert apart.max() <= LEVELS, np.argwhere(apart > LEVELS)[:5]
    assert apart.mean() <= MEAN


WHOLE = (0, 0, 40, 40)
OPERATIONS = {
    "brightness": {"jitter": (("brightness", 1.37),)},
    "darkness": {"jitter": (("brightness", 0.61),)},
    "offset": {"jitter": (("offset", -0.31),)},
    "contrast": {"jitter": (("contrast", 0.62),)},
    "saturation": {"jitter": (("saturation", 1.4),)},
    "hue": {"jitter": (("hue", 0.083),)},
    "hue backwards": {"jitter": (("hue", -0.1),)},
    "all": {"jitter": (("hue", 0.05), ("contrast", 1.3), ("saturation", 0.6), ("brightness", 1.2))},
    "grey": {"gray": True},
    "blur": {"blur": 0.1},
    "more blur": {"blur": 2.0},
    "solarize": {"solarize": 128},
    "flip": {"flip": True},
    "crop": {"box": (3, 5, 36, 31)},
    "bicubic crop": {"box": (3, 5, 36, 31), "bicubic": True},
    "small crop": {"box": (10, 12, 22, 21)},
    "small bicubic crop": {"box": (10, 12, 22, 21), "bicubic": True},
    "rotation": {"rotation": 20.0},
    "shear": {"shear": -0.3, "box": (8, 8, 30, 32)},
}


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("size", [24, 40])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_gives_the_workers_view(name, size, channels):
    images = [photo(40, 40, channels, seed) for seed in range(6)]
    drawn = ViewParams(**({"box": WHOLE} | OPERATIONS[name]))
    plain = ViewParams(WHOLE)
    views = [plain, drawn, drawn, plain, drawn, drawn]  # some have it, some do not
    assert_same(on_device(images, views, size), by_worker(images, views, size))


def test_hue_is_right_for_every_colour():
    """Each view is one colour of a grid over all of them."""
    steps = np.array([0, 1, 40, 85, 127, 128, 170, 213, 254, 255], np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, 40, 25, 3)
    image = np.repeat(np.repeat(grid[0], 1, 0), 1, 1)
    image = np.ascontiguousarray(np.pad(image, ((0, 0), (0, 15), (0, 0)), mode="edge"))
    for shift in (-0.5, -0.1, 0.0, 0.013, 0.25, 0.4):
        views = [ViewParams(WHOLE, jitter=(("hue", shift),))]
        apart = np.abs(on_device([image], views, 40).astype(int) - by_worker([image], views, 40))
        assert apart.max() <= 1


@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["simsiam", "bicubic", "digits"])
def test_drawn_views_of_images_of_many_sizes_are_the_workers(kind, channels, size):
    augmentation = {
        "simsiam": simsiam("bilinear"),
        "bicubic": simsiam("bicubic"),
        "digits": DigitsAugmentation(
            min_scale=0.2, rotation=30.0, shear=0.3, brightness=0.4, contrast=0.4
        ),
    }[kind]
    generator = np.random.default_rng(3)
    images = [
        photo(int(h), int(w), channels, seed)
        for seed, (h, w) in enumerate(generator.integers(9, 150, (24, 2)))
    ]
    views = [
        augmentation.sample(generator, n % 2, image.shape[:2]) for n, image in enumerate(images)
    ]
    ours, theirs = on_device(images, views, size), by_worker(images, views, size)
    # Several operations in turn: where a pixel is one level apart, hue and contrast make it more.
    apart = np.abs(ours.astype(int) - theirs)
    assert (apart > LEVELS).mean() < 1e-3
    assert apart.mean() <= MEAN


def simsiam(interpolation):
    return SimSiamAugmentation(
        min_scale=0.2,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        jitter_p=0.8,
        gray_p=0.2,
        flip_p=0.5,
        blur_p=0.5,
        interpolation=interpolation,
    )


@pytest.mark.parametrize(
    ("drawn", "theirs"),
    [
        ({"box": (4, 6, 35, 30)}, lambda x: v2.functional.resized_crop(x, 6, 4, 24, 31, [24, 24])),
        ({"flip": True}, v2.functional.horizontal_flip),
        ({"jitter": (("brightness", 1.3),)}, lambda x: v2.functional.adjust_brightness(x, 1.3)),
        ({"jitter": (("contrast", 0.7),)}, lambda x: v2.functional.adjust_contrast(x, 0.7)),
        ({"jitter": (("saturation", 1.3),)}, lambda x: v2.functional.adjust_saturation(x, 1.3)),
        ({"gray": True}, lambda x: v2.functional.rgb_to_grayscale(x, 3)),
        ({"solarize": 128}, lambda x: v2.functional.solarize(x, 128)),
        ({"blur": 1.0}, lambda x: v2.functional.gaussian_blur(x, [7, 7], [1.0, 1.0])),
    ],
)
def test_each_operation_gives_torchvisions_view(drawn, theirs):
    image = photo(40, 40)
    size = 24 if "box" in drawn else 40
    ours = on_device([image], [ViewParams(**({"box": WHOLE} | drawn))], size)[0]
    expected = theirs(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    edge = 3 if "blur" in drawn else 0  # torchvision mirrors what lies beyond the edge
    inner = slice(edge, size - edge)
    apart = np.abs(ours.astype(int) - expected)[inner, inner]
    assert apart.max() <= LEVELS
    assert apart.mean() <= 0.6  # torchvision cuts off where Pillow rounds


def test_the_same_twice_and_the_input_is_left_alone():
    images = torch.from_numpy(np.stack([photo(40, 40, 3, s) for s in range(8)])).permute(0, 3, 1, 2)
    augmentation, generator = simsiam("bilinear"), np.random.default_rng(0)
    table = table_of([augmentation.sample(generator, 0, (40, 40)) for _ in range(8)])
    before, sizes = images.clone(), np.full((8, 2), 40)
    crops = [crop_views(images, sizes, table, 32) for _ in range(2)]
    kept = crops[0].clone()
    views = [finish_views(crop, table) for crop in crops]
    assert torch.equal(*views)
    assert torch.equal(images, before)
    assert torch.equal(crops[0], kept)


def test_more_colour_operations_than_there_is_room_for_are_refused():
    with pytest.raises(InputError, match="9 colour operations"):
        table_of([ViewParams(WHOLE, jitter=(("brightness", 1.0),) * 9)])
