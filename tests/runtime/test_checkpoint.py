from __future__ import annotations

import errno
import io
import os
import pickle
import random
import resource
import signal
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.checkpoint import load_checkpoint, load_last, save_checkpoint


def state_of(step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    parameter = torch.randn(7, 5, generator=generator)
    return {
        "identity": "0123abcd",
        "step": step,
        "elapsed": 1.5,
        "siamese": {
            "weight": parameter,
            "half": parameter.bfloat16(),
            "strided": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
            "count": torch.tensor(step),
        },
        "optimizer": {"state": {0: {"momentum_buffer": -parameter}}, "param_groups": [{"lr": 0.1}]},
        "scaler": {},
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
    return type(a) is type(b) and a == b


def files(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def test_what_was_saved_comes_back_to_the_bit(tmp_path):
    state = state_of(3)
    path = save_checkpoint(tmp_path / "new" / "folder", 3, state)
    loaded, newest, damage = load_last(path.parent)
    assert same(loaded, state)
    assert (newest, damage) == (path, [])


def test_the_last_two_are_kept_and_last_points_to_the_newest(tmp_path):
    for step in (9, 10, 99_999_999, 100_000_000):  # by number, not by name
        save_checkpoint(tmp_path, step, {"step": step})
    kept = {"step-99999999.pt", "step-100000000.pt"}
    assert files(tmp_path) == {*kept, *(f"{name}.sha256" for name in kept), "last.pt"}
    assert load_checkpoint(tmp_path / "last.pt") == {"step": 100_000_000}
    assert load_last(tmp_path)[0] == {"step": 100_000_000}


def test_the_digest_is_as_sha256sum_writes_it(tmp_path):
    path = save_checkpoint(tmp_path, 1, state_of(1))
    check = os.popen(f"cd {tmp_path} && sha256sum --check {path.name}.sha256").read()
    assert check == f"{path.name}: OK\n"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, empty, flip])
def test_a_damaged_newest_falls_back_to_the_one_before_with_a_line(tmp_path, damage):
    save_checkpoint(tmp_path, 1, state_of(1))
    damage(save_checkpoint(tmp_path, 2, state_of(2)))
    state, path, lines = load_last(tmp_path)
    assert same(state["siamese"]["weight"], state_of(1)["siamese"]["weight"])
    assert path.name == "step-00000001.pt"
    assert len(lines) == 1
    assert "step-00000002.pt is damaged" in lines[0]


def test_all_damaged_is_a_data_error_and_none_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        load_last(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(tmp_path / "step-00000001.pt")
    for step in (1, 2):
        flip(save_checkpoint(tmp_path, step, state_of(step)))
    with pytest.raises(DataError, match=r"step-00000002\.pt.*step-00000001\.pt"):
        load_last(tmp_path)


class Payload:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.sentinel),))


@pytest.mark.parametrize("how", ["archive", "legacy", "bare pickle"])
def test_a_payload_is_refused_and_not_run(tmp_path, how):
    sentinel, path = tmp_path / "ran", tmp_path / "step-00000001.pt"
    state = {"step": 1, "payload": Payload(sentinel)}
    if how == "bare pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=how == "archive")
    with pytest.raises(DataError, match="nothing in it was run"):
        load_last(tmp_path)
    assert not sentinel.exists()
    torch.load(path, weights_only=False) if how != "bare pickle" else pickle.loads(
        path.read_bytes()
    )
    assert sentinel.exists()  # the payload was a live one


def test_a_garbled_archive_without_a_digest_is_a_data_error(tmp_path):
    """Whatever torch's reader trips over; a stranger's checkpoint brings no digest or his own."""
    original = io.BytesIO()
    torch.save(state_of(1), original)
    archive = zipfile.ZipFile(original)
    members = {name: archive.read(name) for name in archive.namelist()}
    rng = random.Random(0)
    outcomes = set()
    for _ in range(300):
        path = tmp_path / "step-00000001.pt"
        with zipfile.ZipFile(path, "w") as garbled:
            for name, content in members.items():
                body = bytearray(content)
                if name.endswith("data.pkl"):
                    body[rng.randrange(len(body))] = rng.randrange(256)
                garbled.writestr(name, bytes(body))
        try:
            load_checkpoint(path)
            outcomes.add("harmless")
        except DataError as error:
            outcomes.add(type(error).__name__)
    assert "DataError" in outcomes
    for raw in (b"", b"\x80\x02.", b"\x80\x02]q\x00.", b"PK\x03\x04", b"ustar" * 200):
        path.write_bytes(raw)
        with pytest.raises(DataError, match="damaged"):
            load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(DataError, match="holds list"):
        load_checkpoint(path)


def test_a_full_disk_is_an_os_error_and_costs_no_older_checkpoint(tmp_path, monkeypatch):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, state_of(step))
    before = files(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(tmp_path, 3, state_of(3))
    assert files(tmp_path) == before
    assert load_last(tmp_path)[0]["step"] == 2


def test_a_disk_that_fills_up_while_torch_writes_is_an_os_error_too(tmp_path):
    """Torch reports the archive that it could not close, in place of the disk's own error."""
    save_checkpoint(tmp_path, 1, state_of(1))
    before = files(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            save_checkpoint(tmp_path, 2, {"weight": torch.zeros(1000, 1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert files(tmp_path) == before


@pytest.mark.parametrize("call", ["fsync", "replace", "unlink"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_process_killed_anywhere_in_a_save_leaves_a_whole_checkpoint(tmp_path, call, count):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, state_of(step))
    child = os.fork()
    if child == 0:  # nothing may leave here but by the kill
        original, calls = getattr(os, call), []

        def kill(*arguments: Any, **keywords: Any) -> Any:
            calls.append(call)
            if len(calls) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **keywords)

        setattr(os, call, kill)
        try:
            save_checkpoint(tmp_path, 3, state_of(3))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or call == "unlink"
    state, path, damage = load_last(tmp_path)
    assert damage == []
    assert same(state["siamese"]["weight"], state_of(state["step"])["siamese"]["weight"])
    assert state["step"] in {2, 3}
    assert load_checkpoint(tmp_path / "last.pt")["step"] in {2, 3}
    # And the next save goes as ever.
    save_checkpoint(tmp_path, 4, state_of(4))
    assert load_last(tmp_path)[0]["step"] == 4
    assert {name for name in files(tmp_path) if not name.endswith(".sha256")} == {
        "step-00000004.pt",
        path.name,
        "last.pt",
    }


def test_where_links_are_refused_the_newest_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refused)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"step": step})
    last = tmp_path / "last.pt"
    assert not last.is_symlink()
    assert load_checkpoint(last)["step"] == 3
    assert load_last(tmp_path)[0]["step"] == 3
    names = sorted(path.name for path in tmp_path.glob("*.pt"))
    assert names == ["last.pt", "step-00000002.pt", "step-00000003.pt"]
