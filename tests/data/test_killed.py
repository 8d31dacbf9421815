"""SIGKILL at any moment, with everything that is prefetched lost: the ids that follow are exact."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_images import random_png

from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.sources import open_shards

READ = """
import sys
from simsiam_zoo.components.augmentations import cifar_augmentation
from simsiam_zoo.data.loader import TrainLoader
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.sources import open_shards

if __name__ == "__main__":
    folder, start, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    shards = open_shards(folder).train
    plan = SampleOrder(shards.counts, seed=3, batch=8, lanes=2, window=2)
    augmentation = cifar_augmentation(
        min_scale=0.2, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1,
        jitter_p=0.8, gray_p=0.2, flip_p=0.5, interpolation="bilinear",
    )
    loader = TrainLoader(shards, plan, augmentation, 8, seed=3, epochs=5, workers=2)
    for batch in loader.batches(*divmod(start, plan.steps)):
        pixels = int(batch.pixels[0].sum())
        print(batch.epoch, batch.step, pixels, *batch.ids.tolist(), flush=True)
        if batch.epoch * plan.steps + batch.step == last:
            sys.stdin.read()  # and the workers fill what they may make ahead
"""


def read(folder: Path, start: int, last: int = -1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(folder / "read.py"), str(folder), str(start), str(last)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_what_follows_a_sigkill_is_what_would_have_followed(tmp_path):
    samples = [PackedSample(str(i), random_png(i), "png", i) for i in range(61)]
    pack_dataset(tmp_path, {"train": samples}, None, shard_size=7)
    (tmp_path / "read.py").write_text(READ)
    plan = SampleOrder(open_shards(str(tmp_path)).train.counts, seed=3, batch=8, lanes=2, window=2)
    whole, _ = read(tmp_path, 0).communicate(timeout=120)
    lines = whole.splitlines()
    assert len(lines) == 5 * plan.steps
    for at, line in enumerate(lines):
        ids = plan.ids(*divmod(at, plan.steps)).tolist()
        assert line.split()[3:] == [str(id) for id in ids]

    last = random.Random(0).randrange(5, 25)
    process = read(tmp_path, 0, last)
    got = [process.stdout.readline().rstrip("\n") for _ in range(last + 1)]
    time.sleep(0.3)
    process.kill()
    process.wait()
    rest, _ = read(tmp_path, last + 1).communicate(timeout=120)
    assert got + rest.splitlines() == lines
    seen = np.array([line.split()[3:] for line in lines[: plan.steps]], int).ravel()
    assert len(set(seen.tolist())) == len(seen) == plan.steps * 8
