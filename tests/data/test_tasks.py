from __future__ import annotations

import os

import pytest

from simsiam_zoo.data.processes import run_tasks
from simsiam_zoo.errors import DataError, InputError


class Squares:
    def __init__(self, fails: int = -1, dies: int = -1) -> None:
        self.fails, self.dies = fails, dies

    def run(self, number: int) -> int:
        if number == self.dies:
            os._exit(1)  # as the kernel ends what needs too much memory
        if number == self.fails:
            raise InputError("no", "a way out")
        return number**2


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_task_is_done_once_and_errors_come_whole(jobs):
    assert sorted(run_tasks(Squares(), 20, jobs)) == [(i, i**2) for i in range(20)]
    assert list(run_tasks(Squares(), 0, jobs)) == []
    with pytest.raises(InputError) as caught:
        list(run_tasks(Squares(fails=3), 20, jobs))
    assert (caught.value.what, caught.value.hint) == ("no", "a way out")


def test_a_worker_that_dies_is_an_error_and_no_hang():
    with pytest.raises(DataError, match="a worker process died"):
        list(run_tasks(Squares(dies=5), 20, 2))
