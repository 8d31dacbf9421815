"""Who makes the views: workers, workers and the device in turn, or the device alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from gpu_parts.part import Found, Part
from gpu_parts.resident import noise, paper_setup
from shared.images import jpegs, pack_images
from shared.steps import bare_step, clock, speed, steps_in, timed
from simsiam_zoo.training.batches import to_device, train_loader
from simsiam_zoo.training.loop import take_step
from simsiam_zoo.training.setup import Setup

WAYS = ("worker", "split", "device")
FEW = 2  # workers that bound a large network on any GPU
LIGHTLY = 2000  # images/s of lightly's CIFAR-10 SimSiam on an A6000, as its users tell


def run(part: Part) -> None:
    """Small images that rest on the device, photographs, accumulation, the small network."""
    sizes = {
        "cifar10": part.pick(
            ("ResNet-18, 32 px", 32, 512, (32, 32), 40), ("16 px", 16, 4, (32, 32), 4)
        ),
        "imagenet": part.pick(
            ("ResNet-50, 224 px", 224, 256, (375, 500), 8), ("32 px", 32, 4, (75, 100), 4)
        ),
    }
    for preset, (name, size, batch, jpeg, batches) in sizes.items():
        folder = part.folder / f"views-{preset}"
        folder.mkdir()
        pack_images(folder, jpegs(part.pick(64, 8), *jpeg), "jpg", batches * batch)
        title, bare = f"{name}, batch {batch}", f"{name}, batch {batch}, resident tensors"
        part.case(bare, partial(resident, part, preset, size, batch, folder))
        best = part.found(bare).get("images/s")
        if best is None:
            continue
        of = partial(fed, part, preset, size, batch, folder, best)
        for way in WAYS:
            work = partial(of, way)
            if preset == "cifar10":
                work = partial(beside_lightly, work)
            part.case(f"{title}, {way}", work, needs=part.pick(8, 0))
        if preset == "imagenet":
            for way in WAYS[:2]:
                case = f"{title}, {way}, {FEW} workers"
                part.case(case, partial(of, way, data__workers=FEW), needs=part.pick(8, 0))
    name, size, batch, *_ = sizes["cifar10"]
    part.case(f"{name}, views of the device and of a worker", partial(apart, part, size, batch))
    part.case(f"{name}, micro-batches", partial(accumulated, part, size, batch))
    part.case("resnet_small, 28 px, batch 512", partial(small, part))


def resident(part: Part, preset: str, size: int, batch: int, folder: Path) -> Found:
    """Steps on tensors that are there: what no loader can exceed."""
    setup = paper_setup(part, preset, size, batch, folder)
    step = partial(bare_step, setup, noise(part.device, batch, size))
    steps = steps_in(part.device, step, part.pick(1.0, 0.1))
    return {"images/s": speed([timed(part.device, step, steps, batch) for _ in range(2)])}


def fed(
    part: Part,
    preset: str,
    size: int,
    batch: int,
    folder: Path,
    best: float,
    way: str,
    **settings: object,
) -> Found:
    """Steps from the loader, on views made one way, beside `best`, that of resident tensors."""
    settings |= {"data__views": way, "training__epochs": 10_000}
    settings |= {"data__resident": 100.0} if way == "device" else {}
    setup = paper_setup(part, preset, size, batch, folder, **settings)
    began = clock(part.device)
    batches = train_loader(setup).batches()
    for _ in range(part.pick(6, 1)):
        bare_step(setup, to_device(setup, next(batches)))
    started = clock(part.device) - began
    began, waited, steps = clock(part.device), 0.0, 0
    while steps < 2 or time.perf_counter() - began < part.pick(3.0, 0.1):
        asked = time.perf_counter()
        loaded = next(batches)
        waited += time.perf_counter() - asked
        bare_step(setup, to_device(setup, loaded))
        steps += 1
    took = clock(part.device) - began
    own = speed([(took, steps * batch)])
    return {
        "from the loader, images/s": own,
        "x resident tensors": own / best,
        "data wait": waited / took,
        "seconds to start": started,
    }


def beside_lightly(work: Callable[[], Found]) -> Found:
    """What a case finds, and its speed as a multiple of lightly's."""
    found = work()
    return {**found, "x lightly's on an A6000": found["from the loader, images/s"] / LIGHTLY}


def apart(part: Part, size: int, batch: int) -> Found:
    """How far the device's views are from a worker's, and whether they repeat to the bit."""
    folder = part.folder / "views-cifar10"
    made = {}
    for name, way in (("worker", "worker"), ("device", "device"), ("again", "device")):
        setup = paper_setup(part, "cifar10", size, batch, folder, data__views=way)
        made[name] = to_device(setup, next(train_loader(setup, workers=0).batches())).views[0]
    level = 1 / 255 / min(setup.recipe.data.std)
    levels = (made["worker"] - made["device"]).abs() / level
    return {
        "levels of 255 apart, mean": float(levels.mean()),
        "more than two levels, share": float((levels > 2.01).float().mean()),
        "repeat to the bit": "yes" if torch.equal(made["device"], made["again"]) else "no",
    }


def accumulated(part: Part, size: int, batch: int) -> Found:
    """A step of micro-batches beside one that takes its batch whole."""
    speeds, pieces = {}, part.pick(4, 2)
    for count in (1, pieces):
        setup = paper_setup(part, "cifar10", size, batch, training__accumulate=count)
        step = partial(take_step, setup, noise(part.device, batch, size), 1, False)
        steps = steps_in(part.device, step, part.pick(1.0, 0.1))
        speeds[count] = speed([timed(part.device, step, steps, batch)])
    return {"images/s": speeds[pieces], "x one piece": speeds[pieces] / speeds[1]}


def small(part: Part) -> Found:
    """The network of the preset `mnist-5k`, on resident tensors."""
    size, batch = part.pick((28, 512), (16, 4))
    setup: Setup = paper_setup(part, "mnist-5k", size, batch)
    step = partial(bare_step, setup, noise(part.device, batch, size))
    steps = steps_in(part.device, step, part.pick(1.0, 0.1))
    return {"images/s": speed([timed(part.device, step, steps, batch)])}
