"""Compiling kernels does not use up the CPU time that ends a run."""

from __future__ import annotations

import time

import pytest
from numba.core import event

from redy.reduction.limit import TimeUp, ended_after


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_cpu_time_of_compiling_does_not_count():
    begin = time.process_time()
    with ended_after(cpu=0.3):
        event.start_event("numba:compile")
        event.start_event("numba:compile")
        burn(0.3)
        event.end_event("numba:compile")
        burn(0.3)
        event.end_event("numba:compile")
    # Twice the limit was spent, and nothing was raised.
    assert time.process_time() - begin >= 0.6


def test_cpu_time_after_compiling_counts_again():
    def work() -> None:
        event.start_event("numba:compile")
        event.end_event("numba:compile")
        burn(20.0)

    begin = time.process_time()
    with pytest.raises(TimeUp), ended_after(cpu=0.2):
        work()
    assert time.process_time() - begin < 20.0
