"""Of random shards and trees, every image is read, damaged or passed over, and that is said."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_images import encode

from simsiam_zoo.data.index import Findings
from simsiam_zoo.data.inspection import inspect_shards
from simsiam_zoo.data.packing.formats import open_original
from simsiam_zoo.data.packing.job import PackOptions, pack_original
from simsiam_zoo.data.scan import is_litter, scan
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.data.stated import index_folder
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


def spelt(label: int) -> st.SearchStrategy[tuple[str, bytes]]:
    """A number as people write it, in a `cls` or a `json`."""
    text = str(label)
    plain = [text, text + "\r\n", f" {text}", f"{text}.0", f'"{text}"', f"[{text}]"]
    plain = [*(one.encode() for one in plain), b"\xef\xbb\xbf" + text.encode()]
    plain.append(text.encode("utf-16"))
    in_json = [json.dumps({"label": one, "x": 1}).encode() for one in (label, text, [label])]
    return st.sampled_from([("cls", one) for one in plain] + [("json", one) for one in in_json])


UNREADABLE = [("cls", b"1.5"), ("cls", b"\xff\xffx"), ("cls", b"[1, 2]"), ("json", b"{")]
UNTOLD = [("cls", b""), ("json", b"{}"), ("txt", b"a caption")]
labelled = st.integers(0, 90_000).flatmap(
    lambda label: st.tuples(st.just(label), spelt(label))
) | st.tuples(st.just(-1), st.sampled_from(UNREADABLE + UNTOLD))
shard_names = st.sampled_from(
    ["train-0", "Train-1", "a-training-2", "val-0", "VALIDATION_1", "x.test.0", "extra", "data (1)"]
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    drawn=st.dictionaries(shard_names, st.lists(labelled, min_size=1, max_size=4), min_size=1),
    padding=st.integers(2, 20),
)
def test_every_shard_of_a_folder_is_read_or_named_and_every_label_read_or_counted(drawn, padding):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stem, samples in drawn.items():
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for i, (_, (ending, content)) in enumerate(samples):
                    for each, data in ((f"{i}.png", PNG), (f"{i}.{ending}", content)):
                        member = tarfile.TarInfo(each)
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
                end = tar.offset
            (folder / f"{stem}.tar").write_bytes(file.getvalue()[:end] + bytes(512 * padding))
        to_train = {stem for stem in drawn if "train" in stem.lower()}
        to_train = to_train or {"extra", "data (1)"} & set(drawn)
        if not to_train:
            with pytest.raises(InputError, match="no shards to train on"):
                open_shards(name)
            return
        data = open_shards(name)
        assert {path.stem for path in data.train.paths} == to_train
        sets = [one for one in (data.train, data.test) if one]
        read = {path.stem for one in sets for path in one.paths}
        left = len(drawn) - len(read)
        assert any(note.startswith(f"{left} shards of") for note in data.notes) == bool(left)
        for one in sets:
            expected = [label for path in one.paths for label, _ in drawn[path.stem]]
            assert one.labels().tolist() == expected
        unread = sum(spelling in UNREADABLE for stem in read for _, spelling in drawn[stem])
        said = any(
            note.startswith(f"{unread} images in") and "label that cannot be read" in note
            for note in data.notes
        )
        assert said == bool(unread)
        index_folder(sorted(folder.glob("*.tar")))
        again = open_shards(name)
        for one, other in zip(sets, (again.train, again.test), strict=False):
            assert other is not None
            assert other.labels().tolist() == one.labels().tolist()
            assert not inspect_shards(other, None, jobs=1)["damaged"]


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
