"""Evaluation: memory of kNN against features on disk, speed of the frozen pass.

    python benchmarks/evaluation.py [knn|features] [--bank N] [--queries Q] [--width D]
                                    [--images I] [--threads T]

knn       Q (2,000) queries against N (200,000) synthetic features of width D (2,048) on disk, read
          in chunks by a process of its own; its peak resident set is printed. Goal: 2 GB.
features  images/s of the frozen pass (decode, centre view, network, to disk) over I (2,000) images
          of 32 px with `mnist-5k`'s backbone, and of a second evaluation, which finds them there.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from simsiam_zoo.catalog import create_component

GOAL = 2.0  # GB


def write_bank(path: Path, rows: int, width: int) -> None:
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, rows, 4096):
            n = min(4096, rows - start)
            rng.standard_normal((n, width), np.float32).tofile(file)


def knn_alone(path: str, rows: int, queries: int, width: int, threads: int) -> None:
    """What the process of its own does: prints JSON."""
    import torch

    from simsiam_zoo.evaluation.features import Features, FeatureSplits

    torch.set_num_threads(threads)
    bank = torch.from_file(path, False, rows * width, dtype=torch.float32).view(rows, width)
    generator = torch.Generator().manual_seed(1)
    asked = torch.randint(0, rows, (queries,), generator=generator)
    found = [np.fromfile(path, np.float32, width, offset=4 * width * id) for id in asked.tolist()]
    x = torch.from_numpy(np.stack(found)) + 0.1 * torch.randn(queries, width, generator=generator)
    labels = torch.arange(rows) % 1000
    train, test = Features(bank, labels, file=Path(path)), Features(x, labels[asked])
    protocol = create_component("protocol", "knn", t=0.02)
    before = peak()
    began = time.perf_counter()
    figures = protocol(FeatureSplits(train, test, 1000))
    measured = {"seconds": time.perf_counter() - began, "before": before, "peak": peak()}
    print(json.dumps(measured | {"top1": {f.protocol: f.top1 for f in figures}}))


def peak() -> float:
    """Peak resident set of this process in GB; mapped pages of files count as well."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def benchmark_knn(rows: int, queries: int, width: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.f32"
        write_bank(path, rows, width)
        size = path.stat().st_size / 1e9
        sizes = [str(x) for x in (rows, queries, width, threads)]
        done = subprocess.run(
            [sys.executable, __file__, "--alone", str(path), *sizes],
            check=True,
            capture_output=True,
            text=True,
        )
    found = json.loads(done.stdout)
    print(
        f"knn: {queries:,} queries by {rows:,} features of width {width:,},"
        f" {size:.2f} GB on disk: {found['seconds']:.1f} s, peak {found['peak']:.2f} GB resident"
        f" ({found['before']:.2f} before), goal {GOAL:.2f};"
        f" top-1 {', '.join(f'{k} {v:.3f}' for k, v in found['top1'].items())}"
    )


def benchmark_features(images: int, threads: int) -> None:
    import torch

    from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
    from simsiam_zoo.data.sources import open_shards
    from simsiam_zoo.evaluation.frozen_pass import FrozenPass, Transform
    from simsiam_zoo.evaluation.networks import FrozenNetwork
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.runtime.device import open_runtime

    rng = np.random.default_rng(0)
    encoded = [
        cv2.imencode(".png", rng.integers(0, 256, (32, 32, 3), np.uint8))[1].tobytes()
        for _ in range(images)
    ]
    samples = [PackedSample(f"{i:06d}", x, "png", i % 10) for i, x in enumerate(encoded)]
    recipe = Recipe.make("mnist-5k")
    runtime = open_runtime("auto", "auto", threads)
    backbone = recipe.part("backbone").create(image_size=32)
    backbone = backbone.eval().to(memory_format=torch.channels_last).to(runtime.device)
    with tempfile.TemporaryDirectory() as folder:
        data, store = Path(folder) / "data", Path(folder) / "features"
        data.mkdir()
        pack_dataset(data, {"train": samples}, None)
        shards = open_shards(str(data)).train
        transform = Transform(32, 1.0, recipe.data.mean, recipe.data.std)
        networks = [FrozenNetwork(recipe.backbone.name, backbone)]
        frozen = FrozenPass(networks, transform, runtime, store, workers=0)
        taken = []
        for _ in range(2):
            began = time.perf_counter()
            frozen.features(shards, "images", whole=True)
            taken.append(time.perf_counter() - began)
    first, again = (images / seconds for seconds in taken)
    print(
        f"features: {recipe.backbone.name} at 32 px, {runtime.device}, {runtime.precision}:"
        f" {first:,.0f} images/s; found on disk: {again:,.0f} images/s, ratio {again / first:.1f}"
    )


def main() -> None:
    if sys.argv[1:2] == ["--alone"]:
        path, *sizes = sys.argv[2:]
        knn_alone(path, *map(int, sizes))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("knn", "features"))
    parser.add_argument("--bank", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--width", type=int, default=2_048)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if given.what in (None, "knn"):
        benchmark_knn(given.bank, given.queries, given.width, given.threads)
    if given.what in (None, "features"):
        benchmark_features(given.images, given.threads)


if __name__ == "__main__":
    main()
