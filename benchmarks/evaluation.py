"""Evaluation: the end of a run, memory of kNN against features on disk, speed of the frozen pass.

    python benchmarks/evaluation.py [knn|features|end-of-run] [--bank N] [--queries Q] [--width D]
                                    [--images I] [--test I] [--threads T] [--processes P] [--full]

knn       Q (2,000) queries against N (200,000) synthetic features of width D (2,048) on disk, read
          in chunks by a process of its own; its peak of memory is printed. Goal: 2 GB.
features  images/s of the frozen pass (decode, centre view, network, to disk) over I (2,000) images
          of 32 px with `mnist-5k`'s backbone, and of a second evaluation, which finds them there.
end-of-run
          what ends a run, decoding and networks left out: P (2) processes write synthetic features
          of N training and N / 25 test images (or --test) of 1,000 classes by three networks, width
          D, and measure each by kNN (k 20 and 200), the first also by one linear classifier for an
          epoch. The peak of a process's memory (goal: 4 GB) and the share of the time in which a
          process waits for the others are printed. N is 64,000; --full takes ImageNet's 1,281,167,
          which need 33 GB of disk and, on a CPU, hours: kNN's time goes with the test images, so
          that --full --test 2000 tells the memory in a quarter of an hour.

Memory is what the process itself holds (RssAnon of Linux). Pages of the features' files, which are
mapped, are not in it: the system takes them back whenever it wants memory.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shared.rows import row
from simsiam_zoo.catalog import create_component

GOAL = 2.0  # GB
END_GOAL = 4.0  # GB
IMAGENET = 1_281_167
CLASSES = 1000


def write_bank(path: Path, rows: int, width: int) -> None:
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, rows, 4096):
            n = min(4096, rows - start)
            rng.standard_normal((n, width), np.float32).tofile(file)


def knn_alone(path: str, rows: int, queries: int, width: int, threads: int) -> None:
    """What the process of its own does: prints JSON."""
    import torch

    from simsiam_zoo.evaluation.protocol import Features, FeatureSplits

    torch.set_num_threads(threads)
    peak = watch_memory()
    bank = torch.from_file(path, False, rows * width, dtype=torch.float32).view(rows, width)
    generator = torch.Generator().manual_seed(1)
    asked = torch.randint(0, rows, (queries,), generator=generator)
    found = [np.fromfile(path, np.float32, width, offset=4 * width * id) for id in asked.tolist()]
    x = torch.from_numpy(np.stack(found)) + 0.1 * torch.randn(queries, width, generator=generator)
    labels = torch.arange(rows) % 1000
    train, test = Features(bank, labels), Features(x, labels[asked])
    protocol = create_component("protocol", "knn", t=0.02)
    before = peak()
    began = time.perf_counter()
    figures = protocol(FeatureSplits(train, test, 1000))
    measured = {"seconds": time.perf_counter() - began, "before": before, "peak": peak()}
    print(json.dumps(measured | {"top1": {f.protocol: f.top1 for f in figures}}))


def watch_memory() -> Callable[[], float]:
    """Gives the most GB that this process has held from now on, looked at every 20 ms."""
    most = [0.0]

    def look() -> float:
        status = Path("/proc/self/status").read_text()
        held = next(line for line in status.splitlines() if line.startswith("RssAnon"))
        most[0] = max(most[0], int(held.split()[1]) * 1024 / 1e9)
        return most[0]

    def go_on() -> None:
        while True:
            look()
            time.sleep(0.02)

    threading.Thread(target=go_on, daemon=True).start()
    return look


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
    row(
        f"knn, {queries:,} queries by {rows:,} x {width:,}: memory",
        f"{found['peak']:.2f} GB, {found['seconds']:.1f} s",
        f"{size:.2f} GB on disk",
        found["peak"] / size,
        f"<= {GOAL:.0f} GB",
    )


def benchmark_features(images: int, threads: int) -> None:
    import torch

    from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
    from simsiam_zoo.data.sources import open_shards
    from simsiam_zoo.evaluation.frozen_pass import FrozenNetwork, FrozenPass, Transform
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
    row(
        f"features of {recipe.backbone.name} at 32 px, {runtime.precision}: found on disk",
        f"{again:,.0f} images/s",
        f"taken {first:,.0f} images/s",
        again / first,
    )


def end_alone(folder: str, images: int, test: int, width: int, threads: int) -> None:
    """What one process of the end of a run does: prints JSON."""
    import torch

    from simsiam_zoo.catalog import catalog
    from simsiam_zoo.evaluation.evaluate import jobs_of, measure
    from simsiam_zoo.evaluation.protocol import Features, FeatureSplits
    from simsiam_zoo.evaluation.store import CachedFeatures, fill
    from simsiam_zoo.runtime import distributed

    torch.set_num_threads(threads)
    waited, peak = wait_clock(distributed), watch_memory()
    networks = ("trained", "untrained", "raw")

    def synthetic(split: str, samples: int) -> list[Features]:
        entries = [CachedFeatures(Path(folder), {"of": name, "split": split}) for name in networks]

        def rows() -> Iterator[tuple[np.ndarray, list[torch.Tensor], torch.Tensor]]:
            for start in range(256 * distributed.rank(), samples, 256 * distributed.world_size()):
                ids = np.arange(start, min(start + 256, samples))
                labels = torch.from_numpy(ids) % CLASSES
                generator = torch.Generator().manual_seed(2 * start + (split == "test"))
                noise = torch.randn(len(ids), width, generator=generator)
                noise[torch.arange(len(ids)), labels % width] += 12.0  # the class
                yield ids, [noise * scale for scale in (1.0, 0.5, 2.0)], labels

        fill(entries, np.arange(samples), [width] * len(networks), rows())
        found = [entry.read() for entry in entries]
        return [each for each in found if each is not None]

    with distributed.joined():
        began = time.perf_counter()
        splits = {
            name: FeatureSplits(train, test, CLASSES)
            for name, train, test in zip(
                networks, synthetic("train", images), synthetic("test", test), strict=True
            )
        }
        written = time.perf_counter() - began
        knn = catalog().resolve("protocol", "knn")
        linear = catalog().resolve("protocol", "linear:lrs=0.1,wds=0,epochs=1")
        jobs = [job for name in networks for job in jobs_of(name, [knn])]
        jobs += jobs_of("trained", [linear])
        top1 = []
        for scores in measure(jobs, splits):
            assert not isinstance(scores, Exception), scores
            top1 += [score.top1 for score in scores]
        took = time.perf_counter() - began
    found = {"seconds": took, "written": written, "waited": waited[0], "peak": peak()}
    print(json.dumps(found | {"top1": top1}), flush=True)


def wait_clock(distributed: Any) -> list[float]:
    """Seconds that this process spends in what ranks tell each other, from now on."""
    waited = [0.0]

    def timed(call: Callable[..., None]) -> Callable[..., None]:
        def timing(*arguments: Any, **named: Any) -> None:
            began = time.perf_counter()
            call(*arguments, **named)
            waited[0] += time.perf_counter() - began

        return timing

    for name in ("all_gather_object", "broadcast_object_list"):
        setattr(distributed.dist, name, timed(getattr(distributed.dist, name)))
    return waited


def benchmark_end(images: int, test: int, width: int, threads: int, processes: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        sizes = [str(x) for x in (images, test, width, max(1, threads // processes))]
        started = []
        for rank in range(processes):
            world = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_PORT": port}
            world |= {"RANK": rank, "LOCAL_RANK": rank}
            env = os.environ | {"MASTER_ADDR": "127.0.0.1"} | {k: str(v) for k, v in world.items()}
            command = [sys.executable, __file__, "--end", folder, *sizes]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env))
        ends = [process.communicate()[0] for process in started]
        size = sum(file.stat().st_size for file in Path(folder).rglob("x.f32")) / 1e9
    found = [json.loads(end) for end in ends]
    shares = ", ".join(f"{100 * one['waited'] / one['seconds']:.0f} %" for one in found)
    peak = max(one["peak"] for one in found)
    row(
        f"end of run, {images:,} and {test:,} x {width:,} by three networks, {processes} processes:"
        " memory",
        f"{peak:.2f} GB, {found[0]['seconds']:.0f} s",
        f"{size:.2f} GB on disk; waiting {shares}",
        peak / size,
        f"<= {END_GOAL:.0f} GB",
    )


def main() -> None:
    if sys.argv[1:2] == ["--end"]:
        folder, *sizes = sys.argv[2:]
        end_alone(folder, *map(int, sizes))
        return
    if sys.argv[1:2] == ["--alone"]:
        path, *sizes = sys.argv[2:]
        knn_alone(path, *map(int, sizes))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("knn", "features", "end-of-run"))
    parser.add_argument("--bank", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--width", type=int, default=2_048)
    parser.add_argument("--images", type=int, help="default: 2,000; 64,000 of end-of-run")
    parser.add_argument("--test", type=int, help="of end-of-run; default: images / 25")
    parser.add_argument("--processes", type=int, default=2, help="of end-of-run")
    parser.add_argument("--full", action="store_true", help="end-of-run of ImageNet's size")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if given.what in (None, "knn"):
        benchmark_knn(given.bank, given.queries, given.width, given.threads)
    if given.what in (None, "features"):
        benchmark_features(given.images or 2_000, given.threads)
    if given.what in (None, "end-of-run"):
        images = IMAGENET if given.full else given.images or 64_000
        test = given.test or images // 25
        benchmark_end(images, test, given.width, given.threads, given.processes)


if __name__ == "__main__":
    main()
