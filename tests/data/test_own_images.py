"""Images that are named in place of shards: packed once, found again, kept within a bound."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from simsiam_zoo.data.packing import cached
from simsiam_zoo.data.packing.archives import unpacked
from simsiam_zoo.data.packing.job import PackOptions, pack_original
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import DataError, InputError
from tests.data.made_images import encode, random_png


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(folder))
    monkeypatch.setattr(cached, "_pinned", {})
    return folder


def tree(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random_png(number))
    return folder


FLAT = tuple(f"photo {i} é.png" for i in range(5))
SPLIT = [f"{s}/{c}/{i}.png" for s in ("train", "test") for c in ("ant", "bée") for i in range(2)]


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were packed into."""
    done: list[Path] = []

    def counted(original, folder, *more):
        done.append(folder)
        return pack_original(original, folder, *more)

    monkeypatch.setattr(cached, "pack_original", counted)
    return done


def test_a_folder_is_packed_once_and_anew_when_it_changed(tmp_path: Path, packings) -> None:
    folder = tree(tmp_path / "my photos", *FLAT)
    dataset = open_shards(str(folder))
    images = {bytes(dataset.train.read(i).image) for i in range(len(dataset.train))}
    assert images == {(folder / name).read_bytes() for name in FLAT}
    assert open_shards(str(folder)).digest == dataset.digest
    assert len(packings) == 1
    changed = folder / FLAT[0]
    changed.write_bytes(encode(np.zeros((12, 12, 3), np.uint8), compress_level=0))
    black = open_shards(str(folder)).digest
    status = changed.stat()
    changed.write_bytes(encode(np.ones((12, 12, 3), np.uint8), compress_level=0))
    assert changed.stat().st_size == status.st_size
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert len({dataset.digest, black, open_shards(str(folder)).digest}) == 3
    (folder / "one more.png").write_bytes(random_png(9))
    assert len(open_shards(str(folder)).train) == 6
    assert len(packings) == 4


def test_splits_and_labels_are_those_of_pack_and_a_copy_elsewhere_is_the_same_data(
    tmp_path: Path,
) -> None:
    from simsiam_zoo.data.packing.formats import open_original

    here = tree(tmp_path / "insects", *SPLIT)
    pack_original(open_original(here), tmp_path / "shards", PackOptions())
    by_pack, direct = open_shards(str(tmp_path / "shards")), open_shards(str(here))
    assert direct.digest == by_pack.digest
    assert direct.test is not None
    assert direct.classes == ("ant", "bée")
    assert sorted(direct.test.labels()) == [0, 0, 1, 1]
    copy = shutil.copytree(here, tmp_path / "elsewhere" / "insects", copy_function=shutil.copyfile)
    assert open_shards(str(copy)).digest == direct.digest


def test_what_was_taken_out_of_the_cache_is_packed_again(tmp_path: Path, packings) -> None:
    folder = tree(tmp_path / "photos", *FLAT)
    before = open_shards(str(folder))
    before.train.paths[0].unlink()
    assert open_shards(str(folder)).digest == before.digest
    assert len(packings) == 2


def test_a_folder_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    folder = tree(tmp_path / "photos", *FLAT)
    folder.chmod(0o500)
    try:
        assert len(open_shards(str(folder)).train) == 5
        assert sorted(path.name for path in folder.iterdir()) == sorted(FLAT)
    finally:
        folder.chmod(0o700)


def test_a_broken_image_is_left_out_and_told_each_time(tmp_path: Path) -> None:
    folder = tree(tmp_path / "photos", *FLAT)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    for _ in range(2):
        dataset = open_shards(str(folder))
        assert len(dataset.train) == 5
        assert dataset.notes[0].startswith("1 of the 6 images of ")
        listed = Path(dataset.notes[0].partition("left out: ")[2].removesuffix(" lists them"))
        assert "broken.jpg" in listed.read_text()


def test_shards_beside_images_are_taken_and_it_is_said(tmp_path: Path) -> None:
    folder = tree(tmp_path / "both", "sub/a.png")
    assert len(open_shards(str(folder)).train) == 1
    shutil.copy(open_shards(str(folder)).train.paths[0], folder / "train-000000.tar")
    (note,) = open_shards(str(folder)).notes
    assert "holds shards and images (sub/a.png): the shards are read" in note


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ((), "holds no images; looked for"),
        (("Test/ant/0.png", "ant/1.png"), "not clear what to train on(.|\n)*Call one folder train"),
        (("a.png", "ant/1.png"), "1 image beside 1 folder of images"),
        (("IMG_1.HEIC", "b/IMG_2.heic"), "holds 2 images, and none is a JPEG(.|\\n)*Convert them"),
    ],
)
def test_what_pack_refuses_is_refused_with_its_way_out(names, match, tmp_path: Path) -> None:
    folder = tree(tmp_path / "photos", *names)
    folder.mkdir(exist_ok=True)
    with pytest.raises(InputError, match=match):
        open_shards(str(folder))


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("write", "name"), [(zipped, "p.zip"), (tarred, "p.tar.gz")])
def test_an_archive_is_the_same_data_as_the_folder(write, name, tmp_path: Path, cache) -> None:
    folder = tree(tmp_path / "insects", *SPLIT)
    members = {f"insects/{each}": (folder / each).read_bytes() for each in SPLIT}
    members["__MACOSX/._0.png"] = b"no image"
    archive = write(tmp_path / name, members)
    assert open_shards(str(archive)).digest == open_shards(str(folder)).digest
    assert not list((cache / "packed").glob("*.unpacked"))


@pytest.mark.parametrize("write", [zipped, tarred])
@pytest.mark.parametrize("name", ["../out.png", "/tmp/out.png", "a/../../out.png", "C:/out.png"])
def test_no_name_leads_out_of_an_archive(write, name, tmp_path: Path) -> None:
    archive = write(tmp_path / ("x.zip" if write is zipped else "x.tgz"), {name: random_png(0)})
    with pytest.raises(DataError, match="leads out of it"):
        open_shards(str(archive))
    assert not list(tmp_path.rglob("out.png"))


def test_an_archive_of_the_current_folder_and_names_with_colons_are_read(tmp_path: Path) -> None:
    folder = tree(tmp_path / "photos", "0.png", "Shot 12:30.png", "1.png")
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as archive:
        archive.add(folder, ".")  # as `tar -C photos .` does it
    assert len(open_shards(str(tmp_path / "p.tar.gz")).train) == 3


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
def test_a_compressed_archive_with_wrong_bits_is_damaged(ending: str, tmp_path: Path) -> None:
    content = {"a.png": np.random.default_rng(0).bytes(2_000_000), "b.png": random_png(0)}
    path = tmp_path / f"p.tar.{ending}"
    with tarfile.open(path, f"w:{ending}") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    bits = bytearray(path.read_bytes())
    bits[1_200_000] ^= 1
    path.write_bytes(bits)
    with pytest.raises(DataError, match=rf"p\.tar\.{ending} is damaged: [^\n]*\n  Download"):
        open_shards(str(path))


def test_a_file_and_a_folder_of_one_name_and_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "p.tgz", {"a": random_png(0), "a/b.png": random_png(1)})
    with pytest.raises(DataError, match="a file and a folder of one name"):
        open_shards(str(archive))
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"file/into cannot be written"),
        unpacked(archive, tmp_path / "file" / "into", lambda: 1 << 30),
    ):
        pass


def test_archives_that_are_too_large_or_damaged_or_hold_links(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "x.zip", {"a.png": bytes(1000)})
    with (
        pytest.raises(InputError, match="more bytes than there is room for"),
        unpacked(archive, tmp_path / "into", lambda: 999),
    ):
        pass
    assert not (tmp_path / "into").exists()
    whole = tarred(tmp_path / "y.tgz", {"a.png": np.random.default_rng(0).bytes(50_000)})
    whole.write_bytes(whole.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"y\.tgz is damaged"):
        open_shards(str(whole))
    (tmp_path / "z.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"z\.zip is damaged"):
        open_shards(str(tmp_path / "z.zip"))
    with tarfile.open(tmp_path / "l.tgz", "w:gz") as links:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        links.addfile(link)
    with pytest.raises(InputError, match=r"l\.tgz holds no images"):
        open_shards(str(tmp_path / "l.tgz"))
    mixed = zipped(tmp_path / "m.zip", dict.fromkeys(("p/a.png", "p/ant/1.png"), b""))
    with pytest.raises(InputError, match=rf"^{re.escape(str(mixed))}/p holds 1 image beside"):
        open_shards(str(mixed))


def test_the_least_recently_used_goes_where_room_is_needed_unless_it_is_in_use(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tree(tmp_path / name, *FLAT[:3]) for name in "abcd"]
    places = []
    for at, folder in enumerate(folders[:3]):
        places.append(open_shards(str(folder)).train.paths[0].parent)
        os.utime(places[at] / "manifest.json", (at, at))
    for name in (places[0].name, places[2].name):  # all but the second are free
        os.close(cached._pinned.pop(name))
    size = sum(file.stat().st_size for file in places[0].iterdir())
    monkeypatch.setenv("SIMSIAM_ZOO_PACKED_GB", str(3 * size / 1e9))
    open_shards(str(folders[3]))
    assert [place.exists() for place in places] == [False, True, True]
    monkeypatch.setenv("SIMSIAM_ZOO_PACKED_GB", "1e-9")
    (folders[0] / "new.png").write_bytes(random_png(1))
    with pytest.raises(InputError, match=r"no room for(.|\n)*SIMSIAM_ZOO_PACKED_GB"):
        open_shards(str(folders[0]))
    assert places[1].exists()
    monkeypatch.setenv("SIMSIAM_ZOO_PACKED_GB", "much")
    with pytest.raises(InputError, match="is a number of GB, not 'much'"):
        open_shards(str(folders[0]))


def test_what_was_packed_is_read_from_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree(tmp_path / "photos", *FLAT)
    before = open_shards(str(folder)).digest

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cached, "FileLock", read_only)
    assert open_shards(str(folder)).digest == before
    with pytest.raises(InputError, match=r"Read-only file system\n  Set SIMSIAM_ZOO_CACHE"):
        open_shards(str(tree(tmp_path / "others", *FLAT)))


def test_a_disk_that_fills_up_under_the_cache_is_told_with_the_cache_s_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = zipped(tmp_path / "x.zip", {"a.png": random_png(0)})
    monkeypatch.setattr("simsiam_zoo.data.packing.job.write_shard", full)
    monkeypatch.setattr("simsiam_zoo.data.packing.archives.shutil.copyfileobj", full)
    for source in (tree(tmp_path / "photos", *FLAT), archive):
        with pytest.raises(InputError, match=r"No space left on device\n  Set SIMSIAM_ZOO_CACHE"):
            open_shards(str(source))


def test_room_is_made_while_others_come_and_go(tmp_path: Path, cache: Path) -> None:
    """What another process renames or removes meanwhile is no reason to fail."""
    open_shards(str(tree(tmp_path / "photos", *FLAT)))
    busy, done = cache / "packed" / ("0" * 32), threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            (busy / ".packing").mkdir(parents=True)
            for number in range(20):
                (busy / f".{number}.tmp").touch()
            shutil.rmtree(busy)

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(300):
            cached._make_room(cache / "packed" / "x", tmp_path, 0, 1 << 40)
    finally:
        done.set()
        other.join()


def test_of_processes_that_name_one_folder_one_packs(tmp_path: Path) -> None:
    folder = tree(tmp_path / "photos", *(f"{i}.png" for i in range(300)))
    code = (
        "import sys; from simsiam_zoo.data.sources import open_shards;"
        "print(open_shards(sys.argv[1]).digest)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    ended = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ended
    assert len({out for out, _ in ended}) == 1
    assert sum("packing " in err for _, err in ended) == 1
