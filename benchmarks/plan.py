"""The plan of a billion samples in 100,000 shards, and the reader's memory over 10 x more shards.

    python benchmarks/plan.py [SHARDS]

The reader's memory is taken with SHARDS (10,000) and with a tenth of them.
Every figure is of a process of its own. `grown` is its peak resident memory less what it had with
everything imported. The loader opens real shards of two small images each and makes an epoch of
two views from them, in one process.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from shared.rows import row
from simsiam_zoo.catalog import create_component
from simsiam_zoo.data.loader import TrainLoader
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.sources import open_shards

EACH, BATCH = 2, 160


def peak_mb() -> float:
    # Not getrusage: its peak counts what the parent held when it started this process.
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024


def plan_case(shards: int, step: str) -> dict[str, float]:
    """Make the plan and ask for one rank's ids at a step that it has not seen."""
    counts = np.full(shards, 10_000)
    before, start = peak_mb(), time.perf_counter()
    plan = SampleOrder(counts, seed=1, batch=4096, lanes=8)
    at = {"first": 0, "middle": plan.steps // 2, "last": plan.steps - 1}[step]
    plan.ids(7, at, rank=3, world=64)
    return {"seconds": time.perf_counter() - start, "grown": peak_mb() - before}


def reader_case(folder: str) -> dict[str, float]:
    """An epoch by the loader: read, decoded, two views."""
    imported = peak_mb()
    train = open_shards(folder).train
    plan = SampleOrder(train.counts, seed=1, batch=BATCH)
    augmentation = create_component("augmentation", "cifar",
        min_scale=0.2, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1,
        jitter_p=0.8, gray_p=0.2, flip_p=0.5,
    )  # fmt: skip
    start = time.perf_counter()
    for _ in TrainLoader(train, plan, augmentation, 32):
        pass
    seconds = time.perf_counter() - start
    return {"rate": len(train) / seconds, "peak": peak_mb(), "grown": peak_mb() - imported}


def made_shards(folder: Path, shards: int) -> None:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    samples = (PackedSample(str(i), file.getvalue(), "png", 0) for i in range(shards * EACH))
    folder.mkdir()
    pack_dataset(folder, {"train": samples}, None, shard_size=EACH)


def alone(*arguments: str) -> dict[str, float]:
    """A case in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main(many: int = 10_000) -> None:
    few_shards = many // 10
    for step in ("first", "middle", "last"):
        taken = alone("plan", "100000", step)
        found = f"{taken['seconds']:.3f} s, {taken['grown']:.0f} MB grown"
        row(f"plan of 1e9 samples in 100,000 shards, {step} step", found)
    with tempfile.TemporaryDirectory() as name:
        taken = []
        for shards in (few_shards, many):
            folder = Path(name, str(shards))
            made_shards(folder, shards)
            taken.append(alone("reader", str(folder)))
        few, most = taken
        row(
            f"reader's peak of memory, {many:,} shards",
            f"{most['peak']:.0f} MB, {most['grown']:.0f} grown",
            f"{few_shards:,} shards {few['peak']:.0f} MB",
            most["peak"] / few["peak"],
            "near 1",
        )
        row(
            f"reader's speed, {many:,} shards",
            f"{most['rate']:,.0f} samples/s",
            f"{few_shards:,} shards {few['rate']:,.0f} samples/s",
            most["rate"] / few["rate"],
            "near 1",
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["plan"]:
        print(json.dumps(plan_case(int(sys.argv[2]), sys.argv[3])))
    elif sys.argv[1:2] == ["reader"]:
        print(json.dumps(reader_case(sys.argv[2])))
    else:
        main(*map(int, sys.argv[1:]))
