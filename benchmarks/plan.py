"""The plan of a billion samples in 100,000 shards, and the reader's memory over 10 x more shards.

    python benchmarks/plan.py

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

from simsiam_zoo.catalog import create_component
from simsiam_zoo.data.loader import TrainLoader
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.sources import open_shards

FEW, MANY, EACH, BATCH = 1000, 10_000, 2, 160


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


def main() -> None:
    for step in ("first", "middle", "last"):
        taken = alone("plan", "100000", step)
        print(
            f"plan of 1e9 samples in 100,000 shards, {step} step: "
            f"{taken['seconds']:.3f} s, {taken['grown']:.0f} MB grown"
        )
    with tempfile.TemporaryDirectory() as name:
        taken = []
        for shards in (FEW, MANY):
            folder = Path(name, str(shards))
            made_shards(folder, shards)
            taken.append(alone("reader", str(folder)))
            print(
                f"loader of {shards:>6,} shards: peak {taken[-1]['peak']:.1f} MB,"
                f" {taken[-1]['grown']:.1f} MB of it grown, {taken[-1]['rate']:,.0f} samples/s"
            )
        few, many = taken
        per_shard = (many["peak"] - few["peak"]) * 1024 / (MANY - FEW)
        print(
            f"10 x more shards: peak {many['peak'] / few['peak'] - 1:+.1%}, {per_shard:.1f} KB each"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["plan"]:
        print(json.dumps(plan_case(int(sys.argv[2]), sys.argv[3])))
    elif sys.argv[1:2] == ["reader"]:
        print(json.dumps(reader_case(sys.argv[2])))
    else:
        main()
