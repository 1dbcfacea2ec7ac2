"""How much a computation may cost: work, which is the same on every machine, and a deadline.

One object is handed all the way down. It is frozen: whoever spends work passes on what is left (`less`), whoever gives
a step only a part of everything says which part (`share`).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

UNLIMITED = 2**62
"""Work that no computation reaches."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be spent.

    Attributes:
        work: units of work (a row times a variable of the form in which a sub-box is bounded, about a nanosecond times
            the number of inputs; see `redy.condensed.kernels.descent`). Results that only work limits can be repeated.
        deadline: `time.monotonic()` at which the computation ends; infinity for none.
    """

    work: int = UNLIMITED
    deadline: float = math.inf

    @classmethod
    def within(cls, seconds: float | None, work: int = UNLIMITED) -> Limits:
        """So much work, and a deadline in so many seconds from now (None: no deadline)."""
        return cls(work, math.inf if seconds is None else time.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds until the deadline, at least 0; infinity where there is none."""
        return max(0.0, self.deadline - time.monotonic())

    def expired(self) -> bool:
        """Whether the work is spent or the deadline is over."""
        return self.work <= 0 or time.monotonic() > self.deadline

    def share(self, part: float) -> Limits:
        """This part, in (0, 1], of the work and of the time that are left."""
        deadline = self.deadline
        if deadline < math.inf:
            deadline = time.monotonic() + part * self.remaining()
        return Limits(self.work if self.work >= UNLIMITED else int(part * self.work), deadline)

    def at_most(self, *, work: int = UNLIMITED, seconds: float = math.inf) -> Limits:
        """These limits, and no more than so much work and so many seconds from now."""
        return Limits(min(self.work, work), min(self.deadline, time.monotonic() + seconds))

    def less(self, work: int) -> Limits:
        """What is left when so much work has been done."""
        return self if self.work >= UNLIMITED else replace(self, work=max(0, self.work - work))
