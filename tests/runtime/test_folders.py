from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest
from filelock import FileLock

from simsiam_zoo.errors import InputError
from simsiam_zoo.runtime import folders
from simsiam_zoo.runtime.folders import atomic_write, atomic_write_text, cache_dir


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("a much longer old text")
    atomic_write_text(path, "né\r\n")
    assert path.read_bytes() == "né\r\n".encode()
    assert os.listdir(tmp_path) == ["x.toml"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path, error) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as file:  # noqa: PT012
        file.write(b"new" * 10_000)
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_nothing_is_renamed_before_it_is_on_the_disk(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "x.bin"
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle: int) -> None:
        calls.append(f"fsync {os.fstat(handle).st_size}")
        fsync(handle)

    def note_replace(source: object, target: object) -> None:
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    with atomic_write(path) as file:
        file.write(b"123")
    assert calls[:2] == ["fsync 3", "replace"]
    assert len(calls) == 3  # and the folder


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    code = f"""
import os, signal
from pathlib import Path
from threading import Timer
from simsiam_zoo.runtime.folders import atomic_write
with atomic_write(Path({str(path)!r})) as file:
    file.write(b"new" * 1_000_000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert path.read_bytes() == b"old"


def test_files_get_the_users_usual_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write_text(tmp_path / "x", "")
        assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
    finally:
        assert os.umask(before) == 0o027  # a process-wide setting, left alone


def test_the_cache_goes_where_the_user_says(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "a" / "b"))
    assert cache_dir() == tmp_path / "a" / "b"
    assert cache_dir().is_dir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "file" / "b"))
    with pytest.raises(InputError, match="SIMSIAM_ZOO_CACHE"):
        cache_dir()


def test_who_asks_whether_a_lock_is_held_does_not_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = FileLock(tmp_path / "lock", thread_local=False)
    held.acquire()
    assert folders.is_held(tmp_path / "lock")
    monkeypatch.setattr(folders, "ASKED", 30.0)
    Timer(0.05, held.release).start()  # as one that asks lets go of it
    assert not folders.is_held(tmp_path / "lock")
    assert not folders.is_held(tmp_path / "none")
