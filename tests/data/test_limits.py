from __future__ import annotations

import pytest

from simsiam_zoo.data import slots
from simsiam_zoo.data.slots import affordable_workers
from simsiam_zoo.errors import InputError

MIB = 1 << 20


def test_workers_are_as_many_as_fit_into_shared_memory(monkeypatch, capsys):
    monkeypatch.setattr(slots, "_free_shared_memory", lambda: 64 * MIB)  # docker's default
    assert affordable_workers(2, 6 * MIB) == 2  # 4 batches for each, 2 for all
    assert capsys.readouterr().err == ""
    assert affordable_workers(8, 4 * MIB) == 3
    assert "3 loader processes, not 8" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"64\.0 MiB free, one loader process needs 120\.0 MiB"):
        affordable_workers(8, 20 * MIB)
    assert affordable_workers(8, 0) == 8
    assert affordable_workers(0, 20 * MIB) == 0
    monkeypatch.setattr(slots, "_free_shared_memory", lambda: None)
    assert affordable_workers(8, 20 * MIB) == 8


def test_shared_memory_is_read_from_the_system():
    if (free := slots._free_shared_memory()) is not None:
        assert free > 0
