"""Work, time, and what ends a step that does not look at the clock.

Every step gets work and a deadline and keeps to them. What computes for long without looking at the clock, such as one
large linear pass, is ended from outside: a timer of the process raises `TimeUp` in it. Steps add what they found when
they end, so what was found before stays and the rest is given up.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import Literal

from redy.condensed.kernels.compiling import around_compiling

Effort = Literal["quick", "normal", "thorough"]

_AGAIN = 0.25
"""Seconds after which the timer fires again: an exception raised in a callback of the compiler is lost."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a run without a time limit may cost.

    Attributes:
        work: factor on the work of every search; results that only work limits can be repeated.
        seconds: of CPU time of the process for searching; whoever needs more is ended.
        proof: the same for rewriting and for the proof about the file.
    """

    work: float
    seconds: float
    proof: float


BUDGETS: dict[Effort, Budget] = {
    "quick": Budget(0.2, 7.0, 5.0),
    "normal": Budget(1.0, 32.0, 24.0),
    "thorough": Budget(5.0, 700.0, 500.0),
}
"""What `--effort` allows."""


class TimeUp(BaseException):
    """The time of a step is over; no `except Exception` may take it for a fault."""


@contextmanager
def ended_after(wall: float | None = None, cpu: float | None = None) -> Iterator[None]:
    """Raise `TimeUp` in the block after so many seconds of wall time or of CPU time of the process.

    CPU time of compiling kernels does not count: it is spent once on a machine, and a run that it ended would have to
    spend it again. Wall time counts, but strikes only when compiling has ended: numba cannot be stopped half-way. Does
    nothing outside the main thread, or where the program uses the timers itself.
    """
    armed = []
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        for seconds, timer, number in (
            (wall, signal.ITIMER_REAL, signal.SIGALRM),
            (cpu, signal.ITIMER_PROF, signal.SIGPROF),
        ):
            if seconds is not None and signal.getsignal(number) == signal.SIG_DFL:
                armed.append((timer, number))
                signal.signal(number, _strike)
                signal.setitimer(timer, max(seconds, 1e-3), _AGAIN)
    left: dict[int, float] = {}
    since = [0.0]

    def pause() -> None:
        since[0] = time.monotonic()
        left.update({timer: signal.setitimer(timer, 0.0)[0] for timer, _ in armed})

    def go_on() -> None:
        passed = time.monotonic() - since[0]
        for timer, seconds in left.items():
            rest = seconds - passed if timer == signal.ITIMER_REAL else seconds
            signal.setitimer(timer, max(rest, 1e-3), _AGAIN)
        left.clear()

    try:
        with around_compiling(pause, go_on) if armed else nullcontext():
            yield
    finally:
        for timer, number in armed:
            signal.setitimer(timer, 0.0)
            signal.signal(number, signal.SIG_DFL)


def _strike(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise TimeUp
