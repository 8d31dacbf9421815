"""Shortages of memory, real ones of this machine and those that CUDA reports."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from simsiam_zoo.errors import InputError
from simsiam_zoo.runtime.device import memory_trouble

TOO_MUCH = 1 << 50  # bytes: more than a process can address on the machines that there are


def test_main_memory_that_torch_cannot_have_is_a_users_error():
    with pytest.raises(InputError) as caught, memory_trouble("the run", "Take less."):
        torch.empty(TOO_MUCH, dtype=torch.uint8)
    assert caught.value.what.startswith("not enough memory for the run: ")
    assert str(TOO_MUCH) in caught.value.what
    assert "alloc_cpu.cpp" not in caught.value.what
    assert caught.value.hint == "Take less."


def test_main_memory_that_numpy_cannot_have_too():
    with pytest.raises(InputError, match=r"Unable to allocate 1\.00 PiB"):  # noqa: SIM117
        with memory_trouble("the run", "Take less."):
            np.empty(TOO_MUCH, dtype=np.uint8)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB."
        ),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_what_a_device_reports_is_said_in_a_line(error):
    @memory_trouble("the evaluation", "Take less.")
    def work() -> None:
        raise error

    for _ in range(2):  # a decorated function can be called again
        with pytest.raises(InputError) as caught:
            work()
        assert "\n" not in caught.value.what
        assert "total capacity" not in caught.value.what


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), memory_trouble("the run", "Take less."):
        raise RuntimeError("shapes cannot be multiplied")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_real_gpu_that_is_too_small():
    with pytest.raises(InputError, match="CUDA out of memory"):  # noqa: SIM117
        with memory_trouble("the run", "Take less."):
            torch.empty(TOO_MUCH, dtype=torch.uint8, device="cuda")
