"""The device, the arithmetic and the memory of a run.

`auto` takes what is there: CUDA, then MPS, then the CPU; bf16 where the hardware multiplies it
natively, fp16 with loss scaling on older GPUs, else fp32. MPS is unmeasured.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from simsiam_zoo.errors import InputError
from simsiam_zoo.runtime.machine import announced_world_size, default_threads, stated_number

_ROUNDS, _LONG_STEP, _CLEARLY = 5, 0.5, 0.85  # of `fastest_threads`; seconds; share of its time

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """Where and with which arithmetic a run is carried out."""

    device: torch.device
    precision: str  # fp64, fp32, bf16 or fp16
    threads: int

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and images."""
        return torch.float64 if self.precision == "fp64" else torch.float32

    def autocast(self) -> AbstractContextManager[object]:
        """The context of the forward pass."""
        if self.precision not in _AUTOCAST:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_AUTOCAST[self.precision])

    def scaler(self) -> torch.amp.GradScaler:
        """Scales the loss under fp16; passes it through otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def describe(self) -> dict[str, str | int]:
        """Plain values for the lock."""
        return {
            "device": str(self.device),
            "device_name": _device_name(self.device),
            "precision": self.precision,
            "threads": self.threads,
        }


def open_runtime(device: str, precision: str, threads: int) -> Runtime:
    """Choose the device and arithmetic, and set torch's global switches for them.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `fp64`, `fp32`, `bf16` or `fp16`.
        threads: CPU threads of torch; 0: `default_threads`.
    """
    chosen = _device(device)
    threads = threads or default_threads(_local("WORLD_SIZE", 1))
    torch.set_num_threads(threads)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        # Full fp32 is to be had on these cards only by giving up 8x the speed of TF32. By the older
        # of torch's two interfaces: its compiler fails where the newer one was used (torch 2.14).
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        # cuDNN's choice by timing may be another one in each run: not for a caller who asked torch
        # for deterministic algorithms.
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    return Runtime(chosen, _precision(precision, chosen), threads)


def fastest_threads(step: Callable[[], object], most: int) -> int:
    """How many CPU threads take a step soonest: `most`, or a power of 2 that is clearly faster.

    Beside other busy processes that is fewer than there are cores: each of the many waits of a
    step for its last thread is a wait for a core. A step that takes long is not tried: its waits
    are few for its work. torch is left with the number that is returned.
    """
    counts = [*(2**n for n in range(most.bit_length()) if 2**n < most), most]
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(_ROUNDS):
        for count in reversed(counts):
            torch.set_num_threads(count)
            step()  # with threads that have just been made
            began = time.perf_counter()
            step()
            seconds[count].append(time.perf_counter() - began)
            if seconds[count][-1] > _LONG_STEP:
                torch.set_num_threads(most)
                return most
    taken = {count: statistics.median(of) for count, of in seconds.items()}
    best = min(counts, key=lambda count: taken[count])
    chosen = best if taken[best] < _CLEARLY * taken[most] else most
    torch.set_num_threads(chosen)
    return chosen


@contextmanager
def full_fp32() -> Iterator[None]:
    """Matrix products of float32 in full on CUDA, whatever training uses. Also a decorator."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _device(name: str) -> torch.device:
    wrong = f"training.device = {name!r}"
    if name == "auto":
        if torch.cuda.is_available():
            return _cuda(wrong, _local("RANK", 0))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in {"cpu", "cuda", "mps"}:
        raise InputError(f"{wrong}: it is auto, cpu, cuda, cuda:N or mps")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"{wrong}: this machine has no MPS device", "Say auto or cpu.")
    if device.type != "cuda":
        return torch.device(device.type)
    if device.index is not None and (local := _local("WORLD_SIZE", 1)) > 1:
        raise InputError(
            f"{wrong}: {local} processes cannot share one device",
            "Say cuda: each process takes its own.",
        )
    return _cuda(wrong, _local("RANK", 0) if device.index is None else device.index)


def _cuda(wrong: str, index: int) -> torch.device:
    """CUDA device `index`; `wrong` begins the message where it is not there."""
    count, local = torch.cuda.device_count(), _local("WORLD_SIZE", 1)
    if index < count:
        return torch.device("cuda", index)
    if count == 0:
        found = "no CUDA device" if torch.version.cuda else "a torch that was built without CUDA"
        raise InputError(f"{wrong}: this machine has {found}", "Say auto or cpu.")
    if local > count:
        raise InputError(
            f"{wrong}: {local} processes, and CUDA devices for {count} of them",
            f"Start {count} on each machine (torchrun --nproc-per-node {count}), or say cpu.",
        )
    raise InputError(
        f"{wrong}: there is no such device; this machine has"
        f" cuda:0{f' to cuda:{count - 1}' if count > 1 else ''}"
    )


def _precision(name: str, device: torch.device) -> str:
    if name == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
        return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "fp32"
    if name == "fp64" and device.type == "mps":
        raise InputError("training.precision = 'fp64': not on mps; use fp32")
    if name == "fp16" and device.type != "cuda":
        raise InputError(f"training.precision = 'fp16': not on {device.type}; use bf16 or fp32")
    return name


def _local(what: str, default: int) -> int:
    """LOCAL_RANK or LOCAL_WORLD_SIZE, as torchrun states them; left over, they do not count."""
    return stated_number(f"LOCAL_{what}", default) if announced_world_size() > 1 else default


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively; emulated, it is slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "amx_tile", "bf16"))


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        try:
            for line in open("/proc/cpuinfo"):  # noqa: SIM115
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        except OSError:
            pass
    return device.type


COMPILED = (
    "compiled: fused kernels round otherwise than plain ones, so the promise that an interrupted"
    " run ends bit-identical does not hold"
)
"""What a run with `training.compile` says before it starts."""

DEFAULT_BACKEND = "inductor"


def compile_in_place(
    modules: Iterable[nn.Module], device: torch.device, backend: str = DEFAULT_BACKEND
) -> None:
    """Have the forward passes of modules with parameters compiled when they are first called.

    Each is compiled anew for what it has not met yet: eval mode, no gradient, another batch size.
    """
    if backend == DEFAULT_BACKEND and device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise InputError(
                "training.compile needs Triton on CUDA, and it is not installed",
                "python -m pip install triton, or leave out --compile.",
            )
    elif backend == DEFAULT_BACKEND:  # torch itself finds out in the middle of the first step
        named = os.environ.get("CXX")
        if not any(map(shutil.which, [named] if named else ["g++", "clang++", "c++"])):
            raise InputError(
                f"training.compile needs a C++ compiler on {device.type}, and"
                f" {f'CXX = {named!r} is none' if named else 'there is none'}",
                "Install g++ or clang++ (CXX names another), or leave out --compile.",
            )
    for module in modules:
        if next(module.parameters(), None) is not None:
            module.compile(backend=backend)


_SHORTAGES = (
    "DefaultCPUAllocator: ",  # torch, main memory: can't allocate, not enough
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)
"""Those that come as an ordinary RuntimeError."""


@contextmanager
def memory_trouble(doing: str, way_out: str) -> Iterator[None]:
    """What a device or machine that is too small does in the middle of the work, as an InputError.

    `doing` stands after "not enough memory for"; `way_out` is what takes less. Also a decorator.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not (known or any(sign in text for sign in _SHORTAGES)):
            raise
        # the allocator's own words: torch goes on for a paragraph
        line = next(iter(text.splitlines()), "") or type(error).__name__
        line = ". ".join(line.rpartition("DefaultCPUAllocator: ")[2].split(". ")[:2]).rstrip(".")
        raise InputError(f"not enough memory for {doing}: {line}", way_out) from error
