"""Images/s and memory of training steps, beside the paper's algorithm written plainly."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gpu_parts.part import Found, Part, Skipped
from gpu_parts.resident import noise, paper_setup
from shared.images import jpegs, pack_images
from shared.plain import count, plain_network, plain_step
from shared.steps import Block, Step, bare_step, clock, ratio, speed, steps_in, timed
from simsiam_zoo.training.batches import to_device, train_loader

OURS, FP32, BF16 = "ours", "plain fp32", "plain bf16"
TOP = 10  # operations of the profile


def run(part: Part) -> None:
    """ResNet-18 at 32 px as in the paper's CIFAR-10, ResNet-50 at 224 px as in its ImageNet.

    A rehearsal has the first alone, tiny: the second one takes the same way.
    """
    cifar = part.pick(
        ("ResNet-18, 32 px", 32, 512, (32, 32)), ("ResNet-18, 16 px", 16, 4, (32, 32))
    )
    imagenet = "ResNet-50, 224 px", 224, 256, (375, 500)
    both = (("cifar10", cifar), ("imagenet", imagenet))
    for preset, (name, size, batch, jpeg) in part.pick(both, both[:1]):
        title = f"{name}, batch {batch}"
        folder = part.folder / preset
        folder.mkdir()
        pack_images(folder, jpegs(part.pick(64, 8), *jpeg), "jpg", part.pick(8, 4) * batch)
        sides = Sides(part, preset, size, batch, folder)
        sides.measure(title)
        if part.device.type == "cuda":
            part.case(f"{title}, ours in fp16", partial(in_fp16, part, preset, size, batch))
        if OURS in sides.steps:
            for workers in worker_counts(part.cores):
                case = f"{title}, {workers} workers"
                part.case(case, partial(sides.from_loader, workers), needs=part.pick(8, 0))
            sides.profile(title)
        del sides
        if part.device.type == "cuda":
            torch.cuda.empty_cache()


def in_fp16(part: Part, preset: str, size: int, batch: int) -> Found:
    """Our step with loss scaling; cuDNN normalises batches in fp16 and not in bf16."""
    setup = paper_setup(part, preset, size, batch, training__precision="fp16")
    step = partial(bare_step, setup, noise(part.device, batch, size))
    steps = steps_in(part.device, step, 1.0)
    return {"images/s": speed([timed(part.device, step, steps, batch) for _ in range(2)])}


def worker_counts(cores: int) -> list[int]:
    """From none to all cores."""
    return sorted({0, 1, cores // 2, cores})


@contextlib.contextmanager
def torch_defaults() -> Iterator[None]:
    """The switches that a run sets, as torch has them by itself."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.benchmark
    matmul.allow_tf32, cudnn.benchmark = False, False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.benchmark = before


class Sides:
    """Our step and the plain ones, of the same network and batch on resident tensors."""

    def __init__(self, part: Part, preset: str, size: int, batch: int, data: Path) -> None:
        self.part, self.preset, self.batch, self.size = part, preset, batch, size
        self.seconds, self.blocks = part.pick(1.0, 0.05), part.pick(5, 2)
        # More epochs than any case asks for.
        settings = {"training__epochs": 10_000, "data__views": "worker"}
        self.setup = paper_setup(part, preset, size, batch, data, whole=True, **settings)
        self.steps: dict[str, tuple[Step, int]] = {}
        self.peak: dict[str, float] = {}
        self.blocks_of: dict[str, list[Block]] = {}

    def make(self, name: str) -> Step:
        """A side's step."""
        device = self.part.device
        if name == OURS:
            return partial(bare_step, self.setup, noise(device, self.batch, self.size))
        network = plain_network(self.preset).to(device).train()
        assert count(network) == count(self.setup.siamese)
        x1, x2 = torch.randn(2, self.batch, 3, self.size, self.size, device=device).unbind()
        step = plain_step(network, x1, x2, bf16=name == BF16)

        def by_default() -> None:
            with torch_defaults():
                step()

        return by_default

    def measure(self, title: str) -> None:
        """Each side's memory, then all in turns; one that does not fit in memory is left out."""
        for name in (OURS, FP32, BF16):
            self.part.case(f"{title}, {name}, memory", partial(self.prepare_side, name))
        for _ in range(self.blocks):
            for name in self.steps:
                self.blocks_of.setdefault(name, []).append(self.block(name))
        for name, blocks in self.blocks_of.items():
            self.part.case(f"{title}, {name}", partial(self.found, name, blocks))

    def prepare_side(self, name: str) -> Found:
        """Make a side's step and warm it up."""
        device, before = self.part.device, 0
        if device.type == "cuda":
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated() if name != OURS else 0
            torch.cuda.reset_peak_memory_stats()
        step = self.make(name)
        self.steps[name] = step, steps_in(device, step, self.seconds)
        if device.type != "cuda":
            raise Skipped("on CUDA alone")
        return {"peak memory, GB": (torch.cuda.max_memory_allocated() - before) / 1e9}

    def block(self, name: str) -> Block:
        """A block of a side's steps."""
        step, steps = self.steps[name]
        return timed(self.part.device, step, steps, self.batch)

    def found(self, name: str, blocks: list[Block]) -> Found:
        """A side's figures."""
        row: dict[str, Any] = {"images/s": speed(blocks)}
        for other in (FP32, BF16):
            known = other in self.blocks_of
            row[f"x {other}"] = ratio(blocks, self.blocks_of[other]) if known else "-"
        return row

    def from_loader(self, workers: int) -> Found:
        """Our steps on what the loader makes of JPEGs, beside blocks of the resident ones."""
        device, setup = self.part.device, self.setup
        beside = {name: self.block(name) for name in self.steps}
        batches = train_loader(setup, workers=workers).batches()
        # One round of the workers, whose first batches come all at once.
        for _ in range(max(1, workers)):
            bare_step(setup, to_device(setup, next(batches)))
        began, waited, steps = clock(device), 0.0, 0
        least, seconds = self.part.pick(max(2, workers), 1), self.part.pick(3.0, 0.1)
        while steps < least or time.perf_counter() - began < seconds:
            asked = time.perf_counter()
            loaded = next(batches)
            waited += time.perf_counter() - asked
            bare_step(setup, to_device(setup, loaded))
            steps += 1
        took = clock(device) - began
        own = took, steps * self.batch
        row: dict[str, Any] = {
            "from the loader, images/s": speed([own]),
            "data wait": waited / took,
        }
        row |= {f"x {name}, resident": ratio([own], [block]) for name, block in beside.items()}
        return row

    def profile(self, title: str) -> None:
        """The operations of one step that take most time."""
        cuda = self.part.device.type == "cuda"
        kinds = [torch.profiler.ProfilerActivity.CPU]
        kinds += [torch.profiler.ProfilerActivity.CUDA] if cuda else []
        step, _ = self.steps[OURS]
        step()

        def rows() -> Found:
            with torch.profiler.profile(activities=kinds) as profiled:
                step()
                clock(self.part.device)
            time_of = "self_device_time_total" if cuda else "self_cpu_time_total"
            # What the host asked for; the kernels are rows of their own beside it.
            events = [
                each
                for each in profiled.key_averages()
                if each.device_type == torch.autograd.DeviceType.CPU
            ]
            total = sum(getattr(each, time_of) for each in events)
            events.sort(key=lambda each: -getattr(each, time_of))
            for place, each in enumerate(events[:TOP], 1):
                taken = getattr(each, time_of)
                self.part.note(
                    f"{title}, operation {place}",
                    {
                        "operation": each.key,
                        "ms": taken / 1e3,
                        "share": taken / total,
                        "calls": each.count,
                    },
                )
            return {"one step, ms of operations": total / 1e3}

        self.part.case(f"{title}, profile", rows)
