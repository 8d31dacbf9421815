"""A step waits for nothing, and what compiling is worth."""

from __future__ import annotations

import itertools
import warnings
from functools import partial

import torch

from gpu_parts.part import Found, Part
from gpu_parts.resident import noise, paper_setup
from shared.steps import bare_step, clock, ratio, speed, take_turns
from simsiam_zoo.training.batches import to_device, train_loader
from simsiam_zoo.training.setup import Setup

SEEN = 4  # places that are named


def run(part: Part) -> None:
    """All on ResNet-18 at 32 px, batch 512; tiny in a rehearsal."""
    part.case("compiled", partial(compiled, part), needs=part.pick(20, 0))
    for precision in ("bf16", "fp16", "fp32") if part.device.type == "cuda" else ("bf16", "fp32"):
        part.case(f"host waits in a step, {precision}", partial(waits, part, precision, "worker"))
    for way in ("split", "device"):
        case = f"host waits in a step, views by {way}"
        part.case(case, partial(waits, part, "auto", way))


def sized(part: Part, **settings: object) -> Setup:
    """The network of CIFAR-10, on noise."""
    size, batch = part.pick((32, 512), (16, 4))
    return paper_setup(part, "cifar10", size, batch, data__workers=2, **settings)


def waits(part: Part, precision: str, views: str, **settings: object) -> Found:
    """How often the host waits for the device in ten steps that are fed by the loader."""
    setup = sized(part, training__precision=precision, data__views=views, **settings)
    device, batches = setup.runtime.device, train_loader(setup).batches()
    warmed = part.pick(3, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for step, loaded in enumerate(itertools.islice(batches, warmed + part.pick(10, 2))):
                if step == warmed and device.type == "cuda":
                    torch.cuda.set_sync_debug_mode("warn")
                setup.schedule.apply(setup.optimizer, step)
                bare_step(setup, to_device(setup, loaded))
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    told = [(w, str(w.message).lower()) for w in caught]
    # torch says once that the very switch is a prototype.
    found = [w for w, text in told if "synchronizing" in text and "prototype" not in text]
    places = {f"{w.filename.rpartition('/')[2]}:{w.lineno}" for w in found}
    return {
        "waits": len(found) if device.type == "cuda" else "on CUDA alone",
        "at": ", ".join(sorted(places)[:SEEN]) or "-",
    }


def compiled(part: Part, small: tuple[int, ...] = (), **settings: object) -> Found:
    """Losses and speed of `--compile` against eager. A rehearsal compiles by the backend eager."""
    first = part.pick(5, 2)
    plain = sized(part, **settings)
    own = sized(part, training__compile=not part.rehearsal, **settings)
    size, images = plain.recipe.data.image_size, plain.recipe.training.batch_size
    batch = noise(part.device, images, size, small)
    if part.rehearsal:
        for module in (own.siamese.backbone, own.siamese.projector, own.siamese.predictor):
            module.compile(backend="eager")
    began = clock(part.device)
    bare_step(own, batch)
    seconds = clock(part.device) - began
    bare_step(plain, batch)

    def losses(setup: Setup) -> torch.Tensor:
        return torch.stack([bare_step(setup, batch) for _ in range(first)])

    apart = (losses(own) - losses(plain)).abs().max()
    sides = [partial(bare_step, own, batch), partial(bare_step, plain, batch)]
    taken = take_turns(part.device, sides, part.pick(1.0, 0.1), 3, images)
    return {
        "seconds to compile": seconds,
        f"losses of {first} steps apart": float(apart),
        "images/s, compiled": speed(taken[0]),
        "images/s, eager": speed(taken[1]),
        "ratio": ratio(*taken),
    }
