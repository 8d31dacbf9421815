"""Of random shards and trees, every image is read, damaged or passed over, and that is said."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_images import encode

from simsiam_zoo.data.index import Findings
from simsiam_zoo.data.indexing import index_folder
from simsiam_zoo.data.inspection import inspect_shards
from simsiam_zoo.data.packing.job import PackOptions, pack_original
from simsiam_zoo.data.packing.originals import open_original
from simsiam_zoo.data.scan import is_litter, scan
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.data.stream import read_stream
from simsiam_zoo.errors import DataError, InputError

PIXELS = np.zeros((4, 4, 3), np.uint8)
JPEG, PNG = encode(PIXELS, "JPEG"), encode(PIXELS, "PNG")
CONTENTS = {
    "jpeg": JPEG,
    "png": PNG,
    "cut": PNG[:-20],
    "text": b"words",
    "none": b"",
    "seven": b"7",
}
IMAGES = ("jpeg", "png", "cut")
ENDINGS = ("jpg", "jpeg", "JPG", "jfif", "jpe", "png", "webp", "gif", "cls", "json", "txt", "bin")
READ_ENDINGS = ("jpg", "jpeg", "jfif", "jpe", "png", "webp")
LABEL_ENDINGS = ("cls", "json")

stems = st.sampled_from(
    ["a", "b", "a.1", "a.2", "v1.5_3", "x y", "d/a", "._a", ".hidden", "ü", "n(1)"]
)
names = st.builds("{}.{}".format, stems, st.sampled_from(ENDINGS)) | st.sampled_from(
    ["README", "d/raw"]
)
members = st.lists(st.tuples(names, st.sampled_from(sorted(CONTENTS))), min_size=1, max_size=12)


def counts_as_image(name: str, kind: str) -> bool:
    """Whether a person would miss it: by what it is called, or by what it is."""
    if is_litter(name.encode()):
        return False
    ending = name.lower().rpartition(".")[2]
    return ending in (*READ_ENDINGS, "gif") or (kind in IMAGES and ending not in LABEL_ENDINGS)


def tar_bytes(chosen: list[tuple[str, str]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind in chosen:
            member = tarfile.TarInfo(name)
            member.size = len(CONTENTS[kind])
            tar.addfile(member, io.BytesIO(CONTENTS[kind]))
    return file.getvalue()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(chosen=members, cut=st.integers(0, 12), hole=st.sampled_from([0, 0, 0, 40]))
def test_every_image_of_a_shard_is_read_damaged_or_passed_over(chosen, cut, hole):
    """Two tars in one file, with or without a hole between them, of any names."""
    lowered = [name.lower() for name, _ in chosen]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train-0.tar"
        halves = [tar_bytes(part) for part in (chosen[:cut], chosen[cut:]) if part]
        path.write_bytes(bytes(512 * hole).join(halves))
        if hole and len(halves) == 2:
            with pytest.raises(DataError, match="only zeros"):
                scan(path)
            return
        if len(set(lowered)) < len(lowered) and _repeats(path):
            return
        index = scan(path)
        missed = sum(counts_as_image(name, kind) for name, kind in chosen)
        assert len(index) + index.findings.passed_over == missed
        assert index_folder([path])[0].info.samples == len(index)
        _check_streamed(path, missed)
        if not len(index):
            with pytest.raises(InputError, match="holds no images"):
                open_shards(str(path))
            return
        shards = open_shards(str(path)).train
        assert len(shards) == len(index)
        found = inspect_shards(shards, None, jobs=1)
        bad = [
            shards.name(i)
            for i in range(len(shards))
            if bytes(shards.read(i).image) not in (JPEG, PNG)
        ]
        assert [one["sample"] for one in found["damaged"]] == bad
        assert any("shards were passed over" in note for note in found["notes"]) == bool(
            index.findings.passed_over
        )


def _repeats(path: Path) -> bool:
    """Whether a name that is there twice is refused; a name without a key is no sample's."""
    try:
        scan(path)
    except DataError as error:
        return "a name that was there before" in error.what
    return False


def _check_streamed(path: Path, missed: int) -> None:
    findings = Findings()
    streamed = len(list(read_stream(str(path), findings)))
    assert streamed + findings.passed_over == missed


files = st.lists(
    st.tuples(
        st.sampled_from(
            ["cat", "dog", "Train/cat", "train/dog", "val/cat", "Test/dog", "x/train/cat", "."]
        ),
              st.sampled_from(ENDINGS), st.sampled_from(["jpeg", "png", "cut", "text"])),
    min_size=1, max_size=10,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(chosen=files)
def test_every_image_of_a_tree_is_packed_damaged_or_named(chosen):
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        source.mkdir()
        for i, (folder, ending, kind) in enumerate(chosen):
            (source / folder).mkdir(parents=True, exist_ok=True)
            (source / folder / f"{i}.{ending}").write_bytes(CONTENTS[kind])
        images = sum(e.lower() in (*READ_ENDINGS, "gif") or k in IMAGES for _, e, k in chosen)
        try:
            original = open_original(source)
        except InputError:  # nothing is there, or it is not clear what is what: it is asked
            return
        listed = sum(len(split) for split in original.splits.values())
        said = " ".join(original.notes)
        assert (listed == images) == ("not packed" not in said)
        try:
            packed = pack_original(original, Path(name) / "out", PackOptions())
        except DataError:  # all images of a split are damaged
            assert not list((Path(name) / "out").glob("*.tar"))
            return
        assert packed is not None
        assert sum(split.samples for split in packed.splits.values()) + packed.damaged == listed
