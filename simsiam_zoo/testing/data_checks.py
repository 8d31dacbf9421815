"""Checks of where images come from, and what is drawn for them: data sets, augmentations."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng

from simsiam_zoo.data.decode import decode, to_rgb
from simsiam_zoo.data.image import ViewParams, render_view
from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.testing.checks import ComponentUnderTest, check, expect

_SIZES = ((8, 8), (28, 28), (20, 60), (90, 30), (1, 7))
_DRAWS = 20
_SIDE = 16


@check(
    "views",
    "augmentation",
    asks="sample(generator, view, size) gives a simsiam_zoo.plugin.ViewParams whose box lies in an"
    " image of that size (height, width), whatever the size.",
    way_out="clip the box to 0 <= left < right <= width and 0 <= top < bottom <= height.",
    basic=True,
)
def views_lie_in_their_images(tested: ComponentUnderTest) -> None:
    """Squares, wide and tall images, and one that is one pixel high."""
    augmentation, generator = tested.create(), default_rng(0)
    for height, width in _SIZES:
        for draw in range(_DRAWS):
            view = augmentation.sample(generator, draw % 2, (height, width))
            expect(isinstance(view, ViewParams), f"drew a {type(view).__name__}, not a ViewParams")
            left, top, right, bottom = view.box
            inside = 0 <= left < right <= width and 0 <= top < bottom <= height
            expect(inside, f"drew the box {view.box} for an image of {height} x {width}")


@check(
    "pixels",
    "augmentation",
    asks="a view is rendered, by the host or by the augmentation's own apply(image, view, size), to"
    " uint8 [size, size, 3], and the image is left as it is.",
    way_out="draw values that `render_view` knows, and in apply return a new uint8 array.",
)
def views_can_be_rendered(tested: ComponentUnderTest) -> None:
    """RGB images of every size."""
    augmentation, generator = tested.create(), default_rng(1)
    apply = getattr(augmentation, "apply", None) or render_view
    for height, width in _SIZES:
        image = generator.integers(0, 256, (height, width, 3), np.uint8)
        before = image.copy()
        for draw in range(4):
            view = augmentation.sample(generator, draw % 2, (height, width))
            out = to_rgb(apply(image, view, _SIDE))
            right = out.shape == (_SIDE, _SIDE, 3) and out.dtype == np.uint8
            expect(right, f"gave {out.dtype} {list(out.shape)} for {height} x {width} pixels")
            expect(np.array_equal(image, before), "changed the image in place")


@check(
    "draws",
    "augmentation",
    asks="what is drawn depends on the generator, the view's number and the size, on nothing else;"
    " so a run gives the same views with any number of workers.",
    way_out="draw from the numpy Generator that sample is given, and keep no state between calls.",
)
def draws_depend_on_the_generator_alone(tested: ComponentUnderTest) -> None:
    """The same generator after other draws, and in a copy as a worker has it."""
    augmentation = tested.create()

    def draws(one: Any, generator: Generator) -> list[ViewParams]:
        return [one.sample(generator, view, (28, 20)) for view in (0, 1, 0, 1)]

    first = draws(augmentation, default_rng(3))
    draws(augmentation, default_rng(4))
    expect(first == draws(augmentation, default_rng(3)), "drew other views with the same generator")
    sent = pickle.loads(pickle.dumps(augmentation))
    expect(first == draws(sent, default_rng(3)), "draws other views after it was pickled")


@check(
    "samples",
    "dataset",
    asks="a data set is a simsiam_zoo.plugin.Dataset, whose images can be decoded and whose"
    " labels are -1 or number its classes.",
    way_out="pack images with simsiam_zoo.plugin.pack_dataset, and return open_shards(...).",
    basic=True,
)
def samples_can_be_read(tested: ComponentUnderTest) -> None:
    """All labels, and the first and the last image of each split."""
    dataset = tested.create_or_skip()
    expect(isinstance(dataset, Dataset), f"gave a {type(dataset).__name__}, not a Dataset")
    for name, split in (("training", dataset.train), ("test", dataset.test)):
        if split is None:
            continue
        expect(isinstance(split, ShardSet) and len(split), f"has no {name} images")
        labels = split.labels()
        limit = len(dataset.classes) if dataset.classes else int(labels.max()) + 1
        expect(
            labels.min() >= -1 and labels.max() < limit,
            f"has {name} labels from {labels.min()} to {labels.max()}, and {limit} classes",
        )
        for i in (0, len(split) - 1):
            expect(decode(split.read(i).image).ndim == 3, f"{name} image {i} cannot be decoded")


@check(
    "same-again",
    "dataset",
    asks="a data set is the same each time that it is made, and in every process.",
    way_out="pack once, into a folder of its own, with a split that is no one's random draw.",
)
def a_dataset_is_the_same_again(tested: ComponentUnderTest) -> None:
    """Its digest goes into a run's identity."""
    one, two = tested.create_or_skip(), tested.create_or_skip()
    for split in ("train", "test"):
        first, second = getattr(one, split), getattr(two, split)
        expect((first is None) == (second is None), f"has its {split} images only sometimes")
        if first is not None:
            expect(first.digest == second.digest, f"has other {split} images each time")
            sent = pickle.loads(pickle.dumps(first))
            expect(bytes(sent.read(0).image) == bytes(first.read(0).image), "pickling changes it")
