from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from simsiam_zoo.errors import InputError
from simsiam_zoo.runtime.device import Runtime, fastest_threads, open_runtime

SWITCHES = (
    (torch.backends.cuda.matmul, "allow_tf32"),
    (torch.backends.cudnn, "allow_tf32"),
    (torch.backends.cudnn, "benchmark"),
)


@pytest.fixture(autouse=True)
def _global_switches_come_back() -> Iterator[None]:
    threads, switches = torch.get_num_threads(), [getattr(*switch) for switch in SWITCHES]
    yield
    torch.set_num_threads(threads)
    for switch, value in zip(SWITCHES, switches, strict=True):
        setattr(*switch, value)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """`machine(cuda=[(8, 0)], mps=False, cpu={...})`: what torch finds there."""

    def build(cuda=(), mps=False, cpu=()) -> None:
        cards = list(cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cards))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: cards[device.index])
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(cpu, True))
        monkeypatch.delenv("LOCAL_RANK", raising=False)

    return build


@pytest.mark.parametrize(
    ("there", "device", "chosen"),
    [
        ({"cuda": [(8, 0)], "mps": True}, "auto", ("cuda:0", "bf16")),
        ({"cuda": [(7, 5)]}, "auto", ("cuda:0", "fp16")),
        ({"cuda": [(9, 0), (7, 0)]}, "cuda:1", ("cuda:1", "fp16")),
        ({"cuda": [(9, 0)]}, "cuda", ("cuda:0", "bf16")),
        ({"cuda": [(9, 0)]}, "cpu", ("cpu", "fp32")),
        ({"mps": True, "cpu": ["bf16"]}, "auto", ("mps", "fp32")),
        ({"cpu": ["avx512_bf16"]}, "auto", ("cpu", "bf16")),
        ({"cpu": ["amx_bf16"]}, "auto", ("cpu", "bf16")),
        ({"cpu": ["avx2", "avx512_f"]}, "auto", ("cpu", "fp32")),  # bf16 would be emulated
    ],
)
def test_auto_takes_what_is_there(machine, there, device, chosen):
    machine(**there)
    runtime = open_runtime(device, "auto", 1)
    assert (str(runtime.device), runtime.precision) == chosen


def test_a_stated_precision_is_kept(machine):
    machine(cuda=[(8, 0)], cpu=["avx512_bf16"])
    for precision in ("fp32", "bf16", "fp16"):
        assert open_runtime("cuda", precision, 1).precision == precision
    assert open_runtime("cpu", "fp32", 1).precision == "fp32"
    machine(cpu=[])
    assert open_runtime("cpu", "bf16", 1).precision == "bf16"  # slow, and asked for


@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [
        ("gpu", "auto", "auto, cpu, cuda, cuda:N or mps"),
        ("", "auto", "auto, cpu, cuda, cuda:N or mps"),
        ("cuda:-1", "auto", "auto, cpu, cuda, cuda:N or mps"),
        ("meta", "auto", "auto, cpu, cuda, cuda:N or mps"),
        ("cuda:1", "auto", "no such device; this machine has cuda:0"),
        ("mps", "auto", "no MPS"),
        ("cpu", "fp16", "training.precision = 'fp16': not on cpu"),
    ],
)
def test_what_the_machine_cannot_do_is_refused(machine, device, precision, words):
    machine(cuda=[(8, 0)])
    with pytest.raises(InputError) as caught:
        open_runtime(device, precision, 1)
    assert words in str(caught.value)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_processes_than_devices_are_refused_before_cuda_fails(machine, monkeypatch, device):
    machine(cuda=[(8, 0), (8, 0)])
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert str(open_runtime(device, "auto", 1).device) == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="3 processes, and CUDA devices for 2") as caught:
        open_runtime(device, "auto", 1)
    assert "--nproc-per-node 2" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("built_for", "words"), [("12.8", "no CUDA device"), (None, "without CUDA")]
)
def test_cuda_where_there_is_none_says_why(machine, monkeypatch, built_for, words):
    machine()
    monkeypatch.setattr(torch.version, "cuda", built_for)
    with pytest.raises(InputError, match=words) as caught:
        open_runtime("cuda", "auto", 1)
    assert "cpu" in str(caught.value.hint)


def test_autocast_and_scaling_follow_the_precision():
    a = torch.randn(4, 4)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        runtime = Runtime(torch.device("cpu"), precision, 1)
        with runtime.autocast():
            assert (a @ a).dtype == dtype
        assert not runtime.scaler().is_enabled()


def test_threads_are_set_and_0_means_the_cores_that_there_are(machine, monkeypatch):
    machine()
    monkeypatch.setattr("simsiam_zoo.runtime.machine.available_cores", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert open_runtime("cpu", "fp32", 0).threads == torch.get_num_threads() == 3
    assert open_runtime("cpu", "fp32", 2).threads == torch.get_num_threads() == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_real_gpu_opens():
    runtime = open_runtime("auto", "auto", 1)
    assert runtime.device.type == "cuda"
    with runtime.autocast():
        a = torch.randn(8, 8, device=runtime.device)
        assert torch.isfinite(a @ a).all()
    assert runtime.describe()["device_name"]


@pytest.mark.parametrize("deterministic", [False, True])
def test_cudnn_chooses_by_timing_unless_torch_was_asked_to_be_deterministic(
    machine, monkeypatch, deterministic
):
    machine(cuda=[(9, 0)])
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    open_runtime("cuda", "auto", 1)
    assert torch.backends.cudnn.benchmark is not deterministic


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({1: 4.0, 2: 2.0, 4: 1.0, 6: 0.9}, 6),  # idle cores
        ({1: 1.0, 2: 2.0, 4: 3.0, 6: 9.0}, 1),  # cores that others use
        ({1: 3.0, 2: 1.0, 4: 2.0, 6: 4.0}, 2),
        ({1: 0.9, 2: 1.0, 4: 1.0, 6: 1.0}, 6),  # no clear difference
        ({1: 900.0, 2: 900.0, 4: 900.0, 6: 600.0}, 6),  # too long to be tried
    ],
)
def test_the_fastest_threads_are_taken_and_all_where_that_is_not_clear(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], chosen: int
) -> None:
    """A clock that a step moves on by what it takes with that many threads, in milliseconds."""
    clock, tried = [0.0], []

    def step() -> None:
        tried.append(torch.get_num_threads())
        clock[0] += seconds[torch.get_num_threads()] / 1e3

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    before = torch.get_num_threads()
    try:
        assert fastest_threads(step, 6) == chosen == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert set(tried) == ({6} if seconds[6] > 500 else {1, 2, 4, 6})
