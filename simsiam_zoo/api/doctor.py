"""`doctor`: what this machine has, what is wrong with it, and the way out."""

from __future__ import annotations

import math
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from simsiam_zoo.catalog import catalog
from simsiam_zoo.catalog.discovery import SELECTION
from simsiam_zoo.errors import DivergedError, InputError, PluginError, ZooError
from simsiam_zoo.runtime.folders import cache_dir
from simsiam_zoo.runtime.machine import available_cores, unmet_requirements
from simsiam_zoo.runtime.progress import tell

_LITTLE_SHM = 256 * 2**20
_LITTLE_DISK = 2 * 2**30

TEN_STEPS: dict[str, object] = {
    "backbone": "resnet_small:widths=16/32",
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
    "predictor": "mlp:hidden_dim=8",
    "data.image_size": 28,
    "data.workers": 1,  # for shared memory is looked at so
    "training.batch_size": 128,  # of 1,347 images: ten steps an epoch
    "training.epochs": 1,
    "training.threads": 1,
    "evaluation.protocols": [],
}
"""What the check trains, on the preset `digits`."""

Found = str | tuple[str, str]
"""What is well; or what to be warned of, and the way out. What is wrong is raised."""


@dataclass(frozen=True)
class Check:
    """A line of the report: what was looked at, how it is, what there is, and the way out."""

    name: str
    state: Literal["ok", "warning", "problem"]
    said: str
    hint: str | None = None


def doctor(*, run: bool = True, quiet: bool = False) -> list[Check]:
    """Look at Python, torch, the devices, caches and plugins, and train ten steps.

    What is wrong is a check in the state `problem`; nothing is raised, and no run is left.

    Args:
        run: False leaves the ten steps of training out.
        quiet: do not say that they begin.
    """
    checks = [examine(name) for name in MACHINE]
    if run:
        if not quiet:
            tell("training ten steps ...")
        checks.append(examine("ten steps", _ten_steps))
    return checks


def examine(name: str, ask: Callable[[], Found] | None = None) -> Check:
    """What `ask` finds, or what `MACHINE` has under that name. An error is a problem."""
    try:
        found = (ask or MACHINE[name])()
    except ZooError as error:
        return Check(name, "problem", error.what, error.hint)
    except Exception as error:  # a broken installation raises what it likes
        return Check(name, "problem", f"{type(error).__name__}: {error}")
    return Check(name, "ok", found) if isinstance(found, str) else Check(name, "warning", *found)


def _plugins() -> Found:
    """How many can be used; `plugin list` has the time and the fault of each."""
    plugins = catalog().plugins
    well = sum(plugin.status == "ok" for plugin in plugins)
    words = [f"{well} usable of {len(plugins)}"]
    if (only := os.environ.get(SELECTION)) is not None:
        words.append(f"{SELECTION} limits them to {only or 'the built-in one'}")
    unusable = [plugin for plugin in plugins if plugin.status in ("broken", "incompatible")]
    words += [f"{plugin.distribution} is {plugin.status}" for plugin in unusable]
    hint = "simsiam-zoo plugin list shows why; SIMSIAM_ZOO_PLUGINS=-NAME leaves one out."
    if any(plugin.status == "broken" for plugin in unusable):
        raise PluginError("; ".join(words), hint)
    return ("; ".join(words), hint) if unusable else "; ".join(words)


def _packages() -> Found:
    if unmet := unmet_requirements():
        raise PluginError("; ".join(unmet), "python -m pip install --upgrade simsiam-zoo")
    return "all that simsiam-zoo needs are here, and new enough"


def _torch() -> Found:
    try:
        import timm
        import torch
        import torchvision
    except Exception as error:
        hint = "python -m pip install --force-reinstall torch torchvision"
        raise PluginError(f"importing it failed: {error}", hint) from None
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    others = f"torchvision {torchvision.__version__}, timm {timm.__version__}"
    return f"{torch.__version__}, {build}; {others}"


def _devices() -> Found:
    import torch

    found = []
    for i in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(i)
        found.append(f"cuda:{i} {card.name}, {_amount(card.total_memory)}")
    found += ["mps"] if torch.backends.mps.is_available() else []
    if not found and Path("/dev/nvidiactl").exists():
        return (
            "cpu only, though there is an NVIDIA driver",
            "Install a torch built for CUDA: https://pytorch.org/get-started/locally/",
        )
    return "; ".join(found) or "cpu only"


def _precision() -> Found:
    import torch

    from simsiam_zoo.runtime.device import open_runtime

    threads = torch.get_num_threads()
    try:
        runtime = open_runtime("auto", "auto", 0)
    finally:
        torch.set_num_threads(threads)
    return f"auto is {runtime.precision} on {runtime.device}"


def _cores() -> Found:
    limit = os.environ.get("OMP_NUM_THREADS")
    said = f"{available_cores()} usable of {os.cpu_count() or 1}, by affinity and cgroup"
    return said + (f"; OMP_NUM_THREADS={limit}" if limit else "")


def _cache() -> Found:
    folder = cache_dir()
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        hint = "Set SIMSIAM_ZOO_CACHE to a folder that can be written."
        raise InputError(f"{folder} cannot be written: {error.strerror}", hint) from None
    free = shutil.disk_usage(folder).free
    said = f"{folder}: {_amount(free)} free"
    return said if free >= _LITTLE_DISK else (said, "Delete what is not needed: it is made anew.")


def _shared_memory() -> Found:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return "no /dev/shm on this system"
    usage = shutil.disk_usage(folder)
    said = f"/dev/shm: {_amount(usage.free)} free of {_amount(usage.total)}"
    hint = "In a container: docker run --shm-size=2g, or train with data.workers = 0."
    return said if usage.free >= _LITTLE_SHM else (said, hint)


def _ten_steps() -> Found:
    """Ten steps of training on digits, as a run takes them."""
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.training.batches import to_device, train_loader
    from simsiam_zoo.training.loop import take_step
    from simsiam_zoo.training.setup import prepare

    start = time.perf_counter()
    setup = prepare(Recipe.make("digits", None, TEN_STEPS))
    setup.siamese.train()
    losses = [
        take_step(setup, to_device(setup, loaded), step, want_norm=False)[0].item()
        for step, loaded in enumerate(train_loader(setup).batches())
    ]
    if not math.isfinite(sum(losses)):
        raise DivergedError(f"the loss is {losses[-1]} after {len(losses)} steps")
    return f"{len(losses)} steps in {time.perf_counter() - start:.1f} s"


def _amount(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


MACHINE: dict[str, Callable[[], Found]] = {
    "plugins": _plugins,
    "python": lambda: f"{platform.python_version()}, {sys.executable}",
    "packages": _packages,
    "torch": _torch,
    "devices": _devices,
    "precision": _precision,
    "cores": _cores,
    "cache": _cache,
    "shared memory": _shared_memory,
}
"""What is looked at, in this order."""
