"""`simsiam-zoo doctor`: what this machine has, what is wrong with it, and the way out."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from simsiam_zoo.catalog import catalog
from simsiam_zoo.catalog.discovery import SELECTION
from simsiam_zoo.cli.text import columns, print_line
from simsiam_zoo.errors import PluginError, ZooError
from simsiam_zoo.runtime.folders import cache_dir
from simsiam_zoo.runtime.machine import available_cores, unmet_requirements

_LITTLE_SHM = 256 * 2**20
_LITTLE_DISK = 2 * 2**30

TEN_STEPS: dict[str, object] = {
    "backbone": "test_resnet",
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
    "predictor": "mlp:hidden_dim=8",
    "data.image_size": 16,
    "data.workers": 1,
    "training.batch_size": 16,  # of 160 images: ten steps an epoch
    "training.epochs": 1,
    "evaluation.protocols": ["knn"],
    "evaluation.baselines": False,
    "evaluation.rank_samples": 64,
}
"""The run of the check, on the preset `digits`: with a worker, for shared memory is among it."""


CheckState = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Args:
        name: what was looked at.
        state: how it is.
        said: what there is.
        hint: the way out, where one is needed.
    """

    name: str
    state: CheckState
    said: str
    hint: str | None = None


@click.command()
@click.option("--no-run", is_flag=True, help="Leave the ten steps of training out.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def doctor(no_run: bool, as_json: bool) -> int:
    """Look at Python, torch, the devices, caches and plugins, and train ten steps.

    Each line is ok, a warning or a problem, with the way out. The exit code is 3 where there is
    a problem, else 0. The ten steps are on scikit-learn's digits, in a folder that is removed.
    """
    checks = [plugin_check(), *machine_checks()]
    if not no_run:
        if not as_json:
            print_line("training ten steps ...", err=True)
        checks.append(run_check())
    problem = any(check.state == "problem" for check in checks)
    if as_json:
        print_line(json.dumps({"ok": not problem, "checks": [*map(asdict, checks)]}, indent=2))
    else:
        _print(checks)
    return PluginError.exit_code if problem else 0


def _print(checks: list[Check]) -> None:
    rows = [(check.state, check.name, check.said) for check in checks]
    for check, text in zip(checks, columns(rows, wrap=2), strict=True):
        print_line(text)
        if check.hint:
            (hint,) = columns([("", check.hint)], wrap=1, indent=8)
            print_line(hint)


def plugin_check() -> Check:
    """How many plugins can be used; `plugin list` has the time and the fault of each."""
    try:
        plugins = catalog().plugins
    except ZooError as error:
        return _of_error("plugins", error)
    well = sum(plugin.status == "ok" for plugin in plugins)
    words = [f"{well} usable of {len(plugins)}"]
    if (only := os.environ.get(SELECTION)) is not None:
        words.append(f"{SELECTION} limits them to {only or 'the built-in one'}")
    unusable = [plugin for plugin in plugins if plugin.status in ("broken", "incompatible")]
    words += [f"{plugin.distribution} is {plugin.status}" for plugin in unusable]
    if not unusable:
        return Check("plugins", "ok", "; ".join(words))
    state: CheckState = "problem" if any(p.status == "broken" for p in unusable) else "warning"
    hint = "simsiam-zoo plugin list shows why; SIMSIAM_ZOO_PLUGINS=-NAME leaves one out."
    return Check("plugins", state, "; ".join(words), hint)


def machine_checks() -> list[Check]:
    """Python, torch and the machine."""
    return [_python(), _packages(), *_torch(), _cores(), _cache(), _shared_memory()]


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()}, {sys.executable}")


def _packages() -> Check:
    unmet = unmet_requirements()
    if not unmet:
        return Check("packages", "ok", "all that simsiam-zoo needs are here, and new enough")
    return Check(
        "packages", "problem", "; ".join(unmet), "python -m pip install --upgrade simsiam-zoo"
    )


def _torch() -> Iterator[Check]:
    hint = "python -m pip install --force-reinstall torch torchvision"
    try:
        import torch
        import torchvision
    except Exception as error:  # a library that does not load raises what it likes
        yield Check("torch", "problem", f"importing it failed: {error}", hint)
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    timm = importlib.metadata.version("timm")
    said = f"{torch.__version__}, {build}; torchvision {torchvision.__version__}, timm {timm}"
    yield Check("torch", "ok", said)
    yield _devices()
    yield _precision()


def _devices() -> Check:
    import torch

    found = [
        f"cuda:{i} {torch.cuda.get_device_name(i)},"
        f" {torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB"
        for i in range(torch.cuda.device_count())
    ]
    found += ["mps"] if torch.backends.mps.is_available() else []
    if not found and Path("/dev/nvidiactl").exists():
        return Check(
            "devices",
            "warning",
            "cpu only, though there is an NVIDIA driver",
            "Install a torch built for CUDA: https://pytorch.org/get-started/locally/",
        )
    return Check("devices", "ok", "; ".join(found) or "cpu only")


def _precision() -> Check:
    import torch

    from simsiam_zoo.runtime.device import open_runtime

    threads = torch.get_num_threads()
    try:
        runtime = open_runtime("auto", "auto", 0)
    except ZooError as error:
        return _of_error("precision", error)
    finally:
        torch.set_num_threads(threads)
    kind, precision = runtime.device.type, runtime.precision
    why = {
        ("cuda", "bf16"): "the card multiplies bf16 natively",
        ("cuda", "fp16"): "the card has no native bf16, so fp16 with loss scaling",
        ("cpu", "bf16"): "the processor multiplies bf16 natively",
        ("cpu", "fp32"): "the processor has no native bf16 (AVX512-BF16, AMX)",
    }.get((kind, precision), "what runs everywhere there")
    return Check("precision", "ok", f"auto is {precision} on {runtime.device}: {why}")


def _cores() -> Check:
    usable, there = available_cores(), os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    said = f"{usable} usable of {there}"
    if usable < affinity:
        said += f", by the cgroup's quota (affinity: {affinity})"
    elif usable < there:
        said += ", by affinity"
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdigit() and int(limit) < usable:
        said += f"; OMP_NUM_THREADS={limit}"
    return Check("cores", "ok", said)


def _cache() -> Check:
    try:
        folder = cache_dir()
        with tempfile.TemporaryFile(dir=folder):
            pass
    except ZooError as error:
        return _of_error("cache", error)
    except OSError as error:
        hint = "Set SIMSIAM_ZOO_CACHE to a folder that can be written."
        return Check("cache", "problem", f"{folder} cannot be written: {error.strerror}", hint)
    sizes = {path.name: _size(path) for path in sorted(folder.iterdir())}
    parts = ", ".join(f"{name} {_amount(size)}" for name, size in sizes.items() if size)
    free = shutil.disk_usage(folder).free
    said = f"{folder}: {parts or 'empty'}; {_amount(free)} free"
    if free < _LITTLE_DISK:
        return Check("cache", "warning", said, "Delete what is not needed: it is made anew.")
    return Check("cache", "ok", said)


def _shared_memory() -> Check:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check("shared memory", "ok", "no /dev/shm on this system")
    usage = shutil.disk_usage(folder)
    said = f"/dev/shm: {_amount(usage.free)} free of {_amount(usage.total)}"
    if usage.free < _LITTLE_SHM:
        hint = "In a container: docker run --shm-size=2g, or train with data.workers = 0."
        return Check("shared memory", "warning", said, hint)
    return Check("shared memory", "ok", said)


def run_check() -> Check:
    """Ten steps of training on digits and their evaluation, in a folder that is removed."""
    name, start = "ten steps", time.perf_counter()
    try:
        from simsiam_zoo.recipe import Recipe
        from simsiam_zoo.training.run import train

        with tempfile.TemporaryDirectory(prefix="simsiam-zoo-doctor-") as folder:
            data = _pack_few_digits(Path(folder) / "data")
            recipe = Recipe.make("digits", None, {**TEN_STEPS, "dataset": str(data)})
            run = train(recipe, Path(folder) / "run", quiet=True)
            steps = max(int(row["step"]) for row in run.metrics)
    except ZooError as error:
        return _of_error(name, error)
    except Exception as error:  # whatever a broken installation raises
        said = f"{type(error).__name__}: {error}"
        return Check(name, "problem", said, "simsiam-zoo train --preset digits shows more.")
    taken = time.perf_counter() - start
    return Check(name, "ok", f"{steps} steps and their evaluation in {taken:.1f} s")


def _pack_few_digits(folder: Path) -> Path:
    """160 of scikit-learn's digits to train on and 64 to test on, as shards."""
    from simsiam_zoo.components.datasets import digit_samples
    from simsiam_zoo.data.packing.writer import pack_dataset

    samples = digit_samples(224)
    folder.mkdir()
    pack_dataset(folder, {"train": samples[:160], "val": samples[160:]}, tuple("0123456789"), 64)
    return folder


def _of_error(name: str, error: ZooError) -> Check:
    return Check(name, "problem", error.what, error.hint)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    files = (Path(place) / name for place, _, names in os.walk(path) for name in names)
    return sum(file.lstat().st_size for file in files if file.exists())


def _amount(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
