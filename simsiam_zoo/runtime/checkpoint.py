"""Checkpoints: whole or not there, and nothing in one is ever executed.

    checkpoints/step-00000620.pt          a torch.save archive, loaded with weights_only
    checkpoints/step-00000620.pt.sha256   its digest, as sha256sum writes it
    checkpoints/last.pt                   a link to the newest, or a copy where links are refused

The last two are kept, so that a torn one falls back to the one before it.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.folders import atomic_write, atomic_write_text, file_sha256, sync_folder

KEEP_LAST = 2
_NAME = re.compile(r"step-(\d{8,})\.pt\Z")
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")  # in torch's refusal: what the file wants to import


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as the checkpoint of `step`, point `last.pt` to it, drop all but the last two.

    One process at a time may save in a folder.

    Raises:
        OSError: the disk is full, say; the older checkpoints are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    with atomic_write(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # Torch's own complaint while it closes the archive covers what the disk said.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
    atomic_write_text(_digest_path(path), f"{file_sha256(path)}  {path.name}\n")
    _link_last(folder, path)
    for old in _newest_first(folder)[KEEP_LAST:]:
        old.unlink()
        _digest_path(old).unlink(missing_ok=True)
    for torn in folder.glob(".*.tmp"):  # of a process that was killed while it saved
        torn.unlink(missing_ok=True)
    return path


def load_last(folder: Path, mapped: bool = False) -> tuple[dict[str, Any], Path, list[str]]:
    """The newest whole checkpoint: its state, its path, and a line for each damaged newer one.

    InputError: there is no checkpoint. DataError: there are some, and all are damaged.
    """
    paths = _newest_first(folder)
    if not paths:
        what = f"there is no checkpoint in {folder}"
        raise InputError(what, "`simsiam-zoo train --resume` begins such a run anew.")
    damage: list[str] = []
    for path in paths:
        try:
            return load_checkpoint(path, mapped), path, damage
        except DataError as error:
            damage.append(error.what)
    way_out = f"None is whole: remove {folder}, and say the same again, which begins anew."
    raise DataError("; ".join(damage), way_out)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a .safetensors file, and its metadata. Raises DataError: it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return state, dict(file.metadata() or {})
    except Exception as error:  # the reader's own class, which no module of it names publicly
        raise DataError(f"{path} cannot be read as safetensors: {error}") from None


def load_into(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load weights. Raises DataError where they do not fit: `what`, and the first difference."""
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        first = str(error).partition("\n")[2].strip().partition("\n")[0]
        raise DataError(f"{what}: {first}") from None


def newest_checkpoint(folder: Path) -> Path | None:
    """The file of the newest checkpoint in `folder`, whole or not; None: there is none."""
    return next(iter(_newest_first(folder)), None)


def load_checkpoint(
    path: Path, mapped: bool = False, harmless: Sequence[Any] = ()
) -> dict[str, Any]:
    """Read one checkpoint, tensors on the CPU; its digest is checked where there is one.

    `mapped` leaves tensors on the disk until they are looked at; `harmless` are types that may
    stand beside tensors and plain values: reading them runs nothing.

    Raises:
        InputError: it cannot be opened.
        DataError: it is damaged, or holds something other than plain values and tensors.
    """
    try:
        expected = _expected_digest(path)
        if expected is not None and file_sha256(path) != expected:
            raise DataError(f"the checkpoint {path} is damaged: its digest differs")
        with warnings.catch_warnings(), torch.serialization.safe_globals([*harmless]):
            warnings.simplefilter("ignore")  # torch remarks on damage before it fails on it
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as error:
        raise InputError(f"the checkpoint {path} cannot be read: {error.strerror}") from None
    except pickle.UnpicklingError as error:
        found = _GLOBAL.search(str(error))
        what = f"more than tensors and plain values ({found[1]})" if found else "no such values"
        raise DataError(
            f"the checkpoint {path} is damaged, or holds {what}; nothing in it was run",
            "Whoever trusts it can save its tensors alone, in Python:\n"
            f"  table = torch.load({str(path)!r}, weights_only=False)\n"
            '  torch.save({"state_dict": table["state_dict"]}, "tensors.pth")'
            if found
            else None,
        ) from None
    except DataError:
        raise
    except Exception as error:  # a garbled archive makes torch's reader trip in a dozen ways
        first_line = str(error).partition("\n")[0]
        raise DataError(
            f"the checkpoint {path} is damaged: {type(error).__name__} {first_line}".rstrip()
        ) from None
    if not isinstance(state, dict):
        raise DataError(f"the checkpoint {path} holds {type(state).__name__}, not a table")
    return state


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step-*.pt") if _NAME.match(path.name)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step-")), reverse=True)


def _link_last(folder: Path, path: Path) -> None:
    link, beside = folder / "last.pt", folder / ".last.pt.tmp"
    beside.unlink(missing_ok=True)
    try:
        os.symlink(path.name, beside)
    except OSError:  # exFAT, SMB and drives mounted by FUSE may refuse links
        shutil.copyfile(path, beside)
    os.replace(beside, link)
    sync_folder(folder)


def _digest_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _expected_digest(path: Path) -> str | None:
    try:
        words = _digest_path(path).read_text("ascii", "replace").split()
    except FileNotFoundError:
        return None
    return words[0] if words else ""
