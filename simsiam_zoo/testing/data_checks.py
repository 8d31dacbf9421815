"""Checks of where images come from, and what is drawn for them: data sets, augmentations."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng

from simsiam_zoo.data.batches import stated_sizes
from simsiam_zoo.data.decode import decode, to_rgb
from simsiam_zoo.data.image import ViewParams, render_view
from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.testing.checks import ComponentUnderTest, check, expect

_SIZES = ((8, 8), (28, 28), (20, 60), (90, 30), (1, 7))
_SIDE = 16


@check("augmentation", basic=True)
def views(tested: ComponentUnderTest) -> None:
    """sample(generator, view, size) gives a simsiam_zoo.plugin.ViewParams whose box lies in an
    image of that size (height, width). It is rendered, by the host or by the augmentation's own
    apply(image, view, size), to uint8 [size, size, 3], and the image is left as it is. One that
    has view_sizes(size) gives sizes in pixels there, the same each time.

    The way out: clip the box to 0 <= left < right <= width and 0 <= top < bottom <= height, draw
    values that `render_view` knows, and in apply return a new uint8 array.
    """
    augmentation, generator = tested.resolved.create(), default_rng(0)
    apply = getattr(augmentation, "apply", None) or render_view
    stated = stated_sizes(augmentation, _SIDE)
    sizes = (_SIDE, _SIDE) if stated is None else stated
    expect(sizes and min(sizes) > 0, f"states views of {list(sizes)} px")
    expect(stated == stated_sizes(augmentation, _SIDE), "states other sizes each time")
    for height, width in _SIZES:
        image = generator.integers(0, 256, (height, width, 3), np.uint8)
        before = image.copy()
        for draw in range(20):
            number = draw % len(sizes)
            side = sizes[number]
            view = augmentation.sample(generator, number, (height, width))
            expect(isinstance(view, ViewParams), f"drew a {type(view).__name__}, not a ViewParams")
            left, top, end, bottom = view.box
            inside = 0 <= left < end <= width and 0 <= top < bottom <= height
            expect(inside, f"drew the box {view.box} for an image of {height} x {width}")
            out = to_rgb(apply(image, view, side))
            right = out.shape == (side, side, 3) and out.dtype == np.uint8
            expect(right, f"gave {out.dtype} {list(out.shape)} for {height} x {width} pixels")
            expect(np.array_equal(image, before), "changed the image in place")


@check("augmentation")
def draws(tested: ComponentUnderTest) -> None:
    """What is drawn depends on the generator, the view's number and the size, on nothing else; so a
    run gives the same views with any number of workers.

    The way out: draw from the numpy Generator that sample is given, and keep no state between
    calls.
    """
    augmentation = tested.resolved.create()

    def draws(one: Any, generator: Generator) -> list[ViewParams]:
        return [one.sample(generator, view, (28, 20)) for view in (0, 1, 0, 1)]

    first = draws(augmentation, default_rng(3))
    draws(augmentation, default_rng(4))
    expect(first == draws(augmentation, default_rng(3)), "drew other views with the same generator")
    sent = pickle.loads(pickle.dumps(augmentation))  # as a worker has it
    expect(first == draws(sent, default_rng(3)), "draws other views after it was pickled")


@check("dataset", basic=True)
def samples(tested: ComponentUnderTest) -> None:
    """A data set is a simsiam_zoo.plugin.Dataset, the same each time that it is made and in every
    process, whose images can be decoded and whose labels are -1 or number its classes.

    The way out: pack images once with simsiam_zoo.plugin.pack_dataset, with a split that is no
    one's random draw, and return open_shards(...).
    """
    dataset, again = tested.create_or_skip(), tested.create_or_skip()
    expect(isinstance(dataset, Dataset), f"gave a {type(dataset).__name__}, not a Dataset")
    for name in ("train", "test"):
        split, second = getattr(dataset, name), getattr(again, name)
        expect((split is None) == (second is None), f"has its {name} images only sometimes")
        if split is None:
            continue
        expect(isinstance(split, ShardSet) and len(split), f"has no {name} images")
        expect(split.digest == second.digest, f"has other {name} images each time")
        sent = pickle.loads(pickle.dumps(split))
        expect(bytes(sent.read(0).image) == bytes(split.read(0).image), "pickling changes it")
        labels = split.labels()
        limit = len(dataset.classes) if dataset.classes else int(labels.max()) + 1
        expect(
            labels.min() >= -1 and labels.max() < limit,
            f"has {name} labels from {labels.min()} to {labels.max()}, and {limit} classes",
        )
        for i in (0, len(split) - 1):
            expect(decode(split.read(i).image).ndim == 3, f"{name} image {i} cannot be decoded")
