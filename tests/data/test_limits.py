from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from simsiam_zoo.data import slots
from simsiam_zoo.data.slots import affordable_workers
from simsiam_zoo.errors import InputError

MIB = 1 << 20


def test_workers_are_as_many_as_fit_into_shared_memory(monkeypatch, capsys):
    monkeypatch.setattr(slots, "_free_shared_memory", lambda: 64 * MIB)  # docker's default
    assert affordable_workers(2, 7 * MIB, prefetch=4, kept=1) == 2
    assert capsys.readouterr().err == ""
    assert affordable_workers(8, 4 * MIB, prefetch=4, kept=4) == 3
    assert "3 loader processes, not 8" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"64\.0 MiB free, one loader process needs 100\.0 MiB"):
        affordable_workers(8, 20 * MIB, prefetch=4, kept=1)
    assert affordable_workers(8, 0, prefetch=4) == 8
    assert affordable_workers(0, 20 * MIB, prefetch=4) == 0
    monkeypatch.setattr(slots, "_free_shared_memory", lambda: None)
    assert affordable_workers(8, 20 * MIB, prefetch=4) == 8


def test_shared_memory_is_read_from_the_system():
    if (free := slots._free_shared_memory()) is not None:
        assert free > 0


DESCRIPTORS = """
import resource
from simsiam_zoo.data.slots import affordable_workers
from simsiam_zoo.errors import InputError
hard = 300
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
affordable_workers(4, 1, prefetch=4)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
try:
    affordable_workers(64, 1, prefetch=4)
except InputError as error:
    print(error.what)
"""


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 300, reason="needs 300 files")
def test_the_limit_of_descriptors_is_raised_as_far_as_it_may_be():
    done = subprocess.run([sys.executable, "-c", DESCRIPTORS], capture_output=True, text=True)
    raised, refused = done.stdout.splitlines()
    assert int(raised) == 192 + 4 * 13
    assert refused.startswith("this process may open 300 files")
