"""What the environment says of the processes of a run, and a group that the caller has made."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from simsiam_zoo.errors import InputError
from simsiam_zoo.runtime import distributed, machine
from simsiam_zoo.runtime.device import open_runtime
from simsiam_zoo.runtime.progress import tell


def test_variables_that_are_empty_or_left_over_make_no_second_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for size in ("", " ", "1"):
        monkeypatch.setenv("WORLD_SIZE", size)
        monkeypatch.setenv("RANK", "3")
        monkeypatch.setenv("LOCAL_RANK", "3")
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "")
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "")
        assert (machine.announced_world_size(), machine.announced_rank()) == (1, 0)
        assert machine.restarts() == 0
        tell("heard")  # as of the first rank
        assert "heard" in capsys.readouterr().err
        assert open_runtime("cpu", "fp32", 1).device.type == "cpu"
        with distributed.joined():
            assert not distributed.is_distributed()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(InputError, match="WORLD_SIZE is 'two', and no whole number"):
        machine.announced_world_size()


def test_in_the_callers_group_ranks_talk_over_a_group_on_the_cpu() -> None:
    """The caller's may be NCCL's alone, which takes no tensor that lies on the CPU."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with distributed.joined():
            side = distributed._side
            assert side is not None
            assert side is not dist.group.WORLD
            assert dist.get_backend(side) == "gloo"
            with distributed.joined():
                assert distributed._side is side
            assert distributed.agree(2, 0) == (2, 0)
            assert distributed.collect("here") == ["here"]
        assert distributed._side is None
        assert distributed.is_distributed()  # the caller's is left to the caller
    finally:
        dist.destroy_process_group()
