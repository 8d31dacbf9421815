"""Damaged images in real shards: what takes their place, and that nothing else changes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from made_images import encode, random_png

from simsiam_zoo.components.augmentations import SimSiamAugmentation
from simsiam_zoo.data import batches
from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.loader import EvalLoader, TrainLoader
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import DataError

AUGMENTATION = SimSiamAugmentation(
    min_scale=0.2, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1,
    jitter_p=0.8, gray_p=0.2, flip_p=0.5, blur_p=0.5,
 interpolation="bilinear")  # fmt: skip
COUNT, BATCH, LANES = 48, 16, 2
JPEG = encode(np.random.default_rng(1).integers(0, 256, (12, 12, 3), dtype=np.uint8), "JPEG")

DAMAGES: dict[str, tuple[str, bytes]] = {
    "is damaged": ("jpg", JPEG[: len(JPEG) // 2]),
    "is empty": ("jpg", b""),
    "no JPEG, PNG or WebP": ("jpg", encode(np.zeros((4, 4), np.uint8), "GIF")),
    "checksum of the chunk": ("png", random_png(2).replace(b"IDAT", b"IDAU")),
    "cut off": ("png", random_png(3)[:-9]),
    "is refused": ("png", random_png(4)[:16] + b"\x7f\xff\xff\xff" * 2 + random_png(4)[24:]),
    "WEBP image is damaged": ("png", encode(np.zeros((9, 9, 3), np.uint8), "WEBP")[:30]),
}


def repair(png: bytes) -> bytes:
    """With the checksum of its header right: only the size is hostile."""
    return png[:29] + crc32(png[12:29]).to_bytes(4) + png[33:]


DAMAGES["is refused"] = ("png", repair(DAMAGES["is refused"][1]))


def pack_with(folder: Path, damaged: dict[int, tuple[str, bytes]]) -> ShardSet:
    """48 images in shards of 10, labels 0 to 47; those at the places in `damaged` are so."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for i in range(COUNT):
        form, image = damaged.get(i, ("png", random_png(100 + i)))
        samples.append(PackedSample(f"k{i}", image, form, i))
    pack_dataset(folder, {"train": samples}, None, shard_size=10)
    return open_shards(str(folder)).train


def loader(shards: ShardSet, lanes: int = LANES, **options: object) -> TrainLoader:
    plan = SampleOrder(shards.counts, seed=1, batch=BATCH, lanes=lanes)
    return TrainLoader(shards, plan, AUGMENTATION, 8, **{"seed": 5, "epochs": 2, **options})


def same(ours: LoadedBatch, theirs: LoadedBatch) -> bool:
    tensors = ([*batch.views, batch.ids, batch.labels] for batch in (ours, theirs))
    return all(map(torch.equal, *tensors)) and ours.damaged == theirs.damaged


@pytest.fixture
def hurt(tmp_path: Path) -> tuple[ShardSet, ShardSet, set[int]]:
    """Shards with seven damaged images, the same shards without, the damaged ids."""
    places = {3, 4, 5, 17, 31, 40, 41}
    damaged = dict(zip(sorted(places), DAMAGES.values(), strict=True))
    return pack_with(tmp_path / "hurt", damaged), pack_with(tmp_path / "whole", {}), places


def test_a_damaged_image_is_replaced_by_the_next_good_one_of_its_lane(hurt):
    shards, whole, bad = hurt
    met = set()
    for ours, undamaged in zip(loader(shards), loader(whole), strict=True):
        parts = undamaged.ids.view(LANES, -1).tolist()
        expected = []
        for part in parts:
            for place in range(len(part)):
                turned = part[place:] + part[:place]
                expected.append(next(i for i in turned if i not in bad))
        assert ours.ids.tolist() == expected
        assert ours.labels.tolist() == expected
        rows = [row for row, id in enumerate(undamaged.ids.tolist()) if id in bad]
        assert [damage.row for damage in ours.damaged] == rows
        assert [damage.id for damage in ours.damaged] == undamaged.ids[rows].tolist()
        for damage in ours.damaged:
            words = list(DAMAGES)[sorted(bad).index(damage.id)]
            assert words in damage.reason
            assert damage.name.endswith(f"train-{damage.id // 10:06d}.tar: k{damage.id}")
        met |= {damage.id for damage in ours.damaged}

        good = [row for row in range(BATCH) if row not in rows]  # exact for undamaged data
        assert torch.equal(ours.pixels[0][:, good], undamaged.pixels[0][:, good])
        seen = {ours.pixels[0][0, row].numpy().tobytes() for row in range(BATCH)}
        assert len(seen) == BATCH  # what is shown twice is shown in two views
    assert met == bad


def test_what_replaces_it_depends_on_neither_ranks_nor_workers(hurt):
    shards, _, _ = hurt
    alone = list(loader(shards))
    for made in (list(loader(shards, workers=2)), list(loader(shards).batches(0, 0))):
        assert all(same(a, b) for a, b in zip(made, alone, strict=True))
    for world in (2, 4, 8):
        ranks = [list(loader(shards, rank=r, world=world)) for r in range(world)]
        for step, batch in enumerate(alone):
            slices = [rank[step] for rank in ranks]
            assert torch.equal(torch.cat([s.pixels[0] for s in slices], dim=1), batch.pixels[0])
            assert torch.equal(torch.cat([s.ids for s in slices]), batch.ids)
            share = BATCH // world
            rows = [d.row + r * share for r, s in enumerate(slices) for d in s.damaged]
            assert rows == [damage.row for damage in batch.damaged]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_part_without_a_good_image_ends_the_run(tmp_path, workers):
    undamaged = loader(pack_with(tmp_path / "whole", {}), lanes=4)
    part = undamaged.plan.ids(0, 1)[4:8].tolist()
    shards = pack_with(tmp_path / "hurt", dict.fromkeys(part, ("jpg", b"")))
    made = iter(loader(shards, lanes=4, workers=workers))
    next(made)
    with pytest.raises(DataError, match=r"epoch 0, step 1: all 4 images .* k\d+: the image is"):
        next(made)


def test_bit_rot_is_found_by_the_checksum_of_the_index(tmp_path):
    """A JPEG with a wrong bit decodes to something: only a checksum knows."""
    shards = pack_with(tmp_path, {7: ("jpg", JPEG)})
    list(EvalLoader(shards, 8))
    shards.close()
    for path in shards.paths:
        content = path.read_bytes()
        if (at := content.find(JPEG)) >= 0:
            rotten = bytearray(content)
            rotten[at + len(JPEG) * 2 // 3] ^= 0x10
            path.write_bytes(rotten)
    with pytest.raises(DataError, match="k7: its bytes are not the ones that were indexed"):
        list(EvalLoader(shards, 8))
    damaged = [damage.id for batch in loader(shards, epochs=1) for damage in batch.damaged]
    assert damaged == [7]


def test_evaluation_refuses_a_damaged_image_or_leaves_it_out(hurt):
    shards, whole, bad = hurt
    with pytest.raises(DataError, match=r"k3: .* \(and 2 more among 8\)"):
        list(EvalLoader(shards, 8, batch=8))
    kept = list(EvalLoader(shards, 8, batch=8, skip_damaged=True, workers=1))
    good = [id for id in range(COUNT) if id not in bad]
    ids = torch.cat([batch.ids for batch in kept])
    assert ids.tolist() == good
    assert torch.cat([batch.labels for batch in kept]).tolist() == good
    assert {damage.id for batch in kept for damage in batch.damaged} == bad
    expected = torch.cat([batch.pixels[0] for batch in EvalLoader(whole, 8)], dim=1)[:, good]
    assert torch.equal(torch.cat([batch.pixels[0] for batch in kept], dim=1), expected)
    with pytest.raises(DataError, match="k3"):  # nothing would be left
        list(EvalLoader(shards, 8, ids=np.array([3, 4, 5]), skip_damaged=True))


def test_each_damaged_image_is_tried_once_a_batch(hurt, monkeypatch):
    shards, _, bad = hurt
    tried: list[int] = []
    decode: Callable[..., np.ndarray] = batches.decode_as

    def counting(data: bytes, channels: int) -> np.ndarray:
        try:
            return decode(data, channels)
        except DataError:
            tried.append(1)
            raise

    monkeypatch.setattr(batches, "decode_as", counting)
    found = sum(len(batch.damaged) for batch in loader(shards, epochs=1))
    assert found == len(bad) == len(tried)


def test_control_characters_of_a_shard_stay_out_of_the_reason(tmp_path, write_tar):
    members = {f"{i}.png": random_png(i) for i in range(BATCH)}
    write_tar(tmp_path / "a.tar", members | {"\x1b[2J7.jpg": b"\x89PNG\r\n\x1a\n\x1b[2J"})
    shards = open_shards(str(tmp_path / "a.tar")).train
    kept = list(EvalLoader(shards, 8, skip_damaged=True))
    (damage,) = kept[0].damaged
    assert (damage.name + damage.reason).isprintable()


def test_a_batch_with_damage_survives_pickling(hurt):
    shards, _, _ = hurt
    batch = next(b for b in loader(shards) if b.damaged)
    file = io.BytesIO()
    torch.save(batch, file)
    file.seek(0)
    assert same(torch.load(file, weights_only=False), batch)
