from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from PIL import Image


def write(path: Path, names: list[str]) -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(file.getvalue()) if name.endswith("png") else 1
            tar.addfile(member, io.BytesIO(file.getvalue() if name.endswith("png") else b"3"))


def test_index_counts_warns_and_refuses(zoo_here, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    write(folder / "train-0.tar", ["a.png", "b.png", "a.cls", "b.cls", "c.txt"])
    write(folder / "val-0.tar", ["a.png", "a.cls"])
    done = zoo_here("index", "shards", "--checksums", "--json", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["samples"], report["labelled"]) == (3, 3)
    assert "2 samples in 1 shards do not have their members side by side" in done.stderr
    assert "1 keys in 1 shards name no image" in done.stderr
    splits = json.loads((folder / "manifest.json").read_text())["splits"]
    assert [splits[name]["samples"] for name in ("train", "val")] == [2, 1]
    again = zoo_here("index", "shards").stdout
    assert "3 images in 2 shards" in again
    assert "of every image" in again  # those that were taken before

    write(folder / "train-1.tar", ["a.png", "a.png"])
    refused = zoo_here("index", "shards")
    assert refused.returncode == 4
    assert "1 members have a name that was there before" in refused.stderr
    assert zoo_here("index", "nowhere").returncode == 2
