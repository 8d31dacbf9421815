"""What `simsiam-zoo doctor` looks at, one function a check."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from simsiam_zoo.catalog import HOST, Plugin, catalog
from simsiam_zoo.catalog.discovery import SELECTION, config_path
from simsiam_zoo.catalog.local import LOCAL_VERSION
from simsiam_zoo.cli.plugin import is_slow
from simsiam_zoo.errors import ZooError
from simsiam_zoo.runtime.cores import available_cores
from simsiam_zoo.runtime.folders import cache_dir
from simsiam_zoo.runtime.requirements import unmet_requirements

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
    state: Literal["ok", "warning", "problem"]
    said: str
    hint: str | None = None


def plugin_checks() -> list[Check]:
    """The configuration and every plugin: one line for those that are well, one for each other."""
    try:
        plugins = catalog().plugins
    except ZooError as error:
        return [_of_error("plugins", error)]
    checks = [check for plugin in plugins for check in _plugin(plugin)]
    well = sum(plugin.status == "ok" for plugin in plugins)
    config = config_path()
    words = [f"{well} usable of {len(plugins)}"]
    if config is not None and config.is_file():
        words.append(f"configured by {config}")
    if (only := os.environ.get(SELECTION)) is not None:
        words.append(f"{SELECTION} limits them to {only or 'the built-in one'}")
    return [Check("plugins", "ok", "; ".join(words)), *checks]


def _plugin(plugin: Plugin) -> Iterator[Check]:
    name = f"plugin {plugin.distribution}"
    mend = f"python -m pip install --upgrade {plugin.distribution}"
    disable = f'or switch it off: [plugins] disabled = ["{plugin.distribution}"] in {config_path()}'
    said = f"{plugin.version}: {plugin.status}: {plugin.cause}"
    if plugin.status == "broken":
        yield Check(name, "problem", said, f"{mend}, {disable}")
    elif plugin.status == "incompatible":
        yield Check(name, "warning", said, mend)
    elif plugin.status == "disabled":
        yield Check(name, "ok", said)
    if is_slow(plugin):
        took = f"{1e3 * plugin.seconds:.0f} ms to load, before every command"
        yield Check(name, "warning", took, f"Its author can import less in {plugin.module}.")
    if _imports_torch(plugin):
        yield Check(
            name,
            "warning",
            f"imports torch when it is listed, by {plugin.module}",
            "Its author can keep torch in the modules that the targets name.",
        )


def _imports_torch(plugin: Plugin) -> bool:
    """Whether listing it imports torch; where torch was there before, asked in a fresh process."""
    ours = plugin.distribution == HOST or plugin.version == LOCAL_VERSION
    if plugin.imported_torch is not None or ours or plugin.status != "ok":
        return bool(plugin.imported_torch) and not ours
    code = "import sys, simsiam_zoo.catalog as c; c.catalog(); print('torch' in sys.modules)"
    env = os.environ | {SELECTION: plugin.distribution}
    try:
        run = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return run.stdout.strip() == "True"


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
    return replace(Check(name, "problem", error.what), hint=error.hint)


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
