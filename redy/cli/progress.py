"""Progress on stderr, the same in every command: what is being done, how much is done, the rate, the time that is left.

On a terminal it is one line that goes away before results are printed; elsewhere a line now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from redy.cli.interrupts import check

if TYPE_CHECKING:
    from rich.progress import Progress

EVERY = 30.0
"""Seconds between two lines about the same step where stderr is no terminal."""


class Display:
    """Shows how far a command is; a context manager.

    Args:
        what: the things that are counted, such as "slices"; "" where there is but one.
        total: how many there are.
        done: how many were there at the beginning (after --resume): they count as done, but not for the rate.
        quiet: show nothing.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        what: str = "",
        total: int = 1,
        done: int = 0,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.done, self.quiet, self.clock = what, total, done, quiet, clock
        self._first, self._begin, self._last = done, clock(), -EVERY
        self._step = ""
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if not self.quiet:
            self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, text: str) -> None:
        """Name what is being done now; raises a Ctrl-C that was lost on the way."""
        check()
        changed, self._step = text != self._step, text
        self._show(now=changed)

    def say(self, text: str) -> None:
        """A line that stays, above the display."""
        if not self.quiet:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def advance(self, done: int | None = None, text: str = "") -> None:
        """One more is done, or `done` in all."""
        check()
        self.done, self._step = self.done + 1 if done is None else done, text
        self._show(now=self.done == self.total)

    @property
    def rate(self) -> float:
        """Things done a second since the beginning of this process."""
        return (self.done - self._first) / max(self.clock() - self._begin, 1e-9)

    @property
    def remaining(self) -> float | None:
        """Seconds left at this rate; None before anything was done."""
        return (self.total - self.done) / self.rate if self.done > self._first else None

    def line(self) -> str:
        """Everything in words."""
        parts = []
        if self.what:
            parts.append(f"{self.done:,} of {self.total:,} {self.what}")
        if self.what and self.remaining is not None:
            unit = f"{self.rate:.1f}/s" if self.rate >= 0.1 else f"{60 * self.rate:.1f}/min"
            parts += [unit, f"{hours(self.remaining)} left"] if self.done < self.total else [unit]
        return ", ".join([*parts, *([self._step] if self._step else [])])

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._console = Console(stderr=True)
        if not self._console.is_terminal:
            return
        count = [BarColumn(bar_width=20)] if self.what else [SpinnerColumn()]
        columns: Any = [*count, TextColumn("{task.description}", markup=False)]
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task(self.line(), total=self.total if self.what else None, completed=self.done)
        self._bar.start()

    def _show(self, *, now: bool) -> None:
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.update(self._task, description=self.line(), completed=self.done)
        elif now or self.clock() - self._last >= EVERY:
            self._last = self.clock()
            self._console.print(self.line(), highlight=False, markup=False, soft_wrap=True)


def hours(seconds: float) -> str:
    """h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
