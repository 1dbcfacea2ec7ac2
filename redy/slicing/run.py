"""A run over many items: what the store lacks is sent to the executor, and every result is stored as it comes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace

from redy.runs.executor import Executor, chunked
from redy.runs.store import Store
from redy.slicing.work import SliceRecord, SliceWork

COLUMNS = {
    "slice": "INTEGER",
    "mask": "BLOB NOT NULL",
    "stuck": "INTEGER NOT NULL",
    "undecided": "INTEGER NOT NULL",
    "complete": "INTEGER NOT NULL",
    "boxes": "INTEGER NOT NULL",
    "seconds": "REAL NOT NULL",
    "winner": "INTEGER NOT NULL",
    "relaxed": "INTEGER NOT NULL",
    "lines": "BLOB NOT NULL",
}
"""The result columns of a slice, in the order of `SliceRecord`; all but `seconds` are the same on every run."""

CHUNK = 32
"""Slices sent to a worker at once, at most."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        done, total: slices.
        rate: slices a second since this process began.
        removed: the share of units that are not needed, over the finished slices.
        partial: slices whose search was ended by a limit.
    """

    done: int
    total: int
    rate: float
    removed: float
    partial: int

    @property
    def remaining(self) -> float | None:
        """Seconds that are left at this rate."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None


def run_slices(
    work: SliceWork,
    executor: Executor,
    store: Store | None,
    *,
    jobs: int = 1,
    only: range | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> list[SliceRecord]:
    """Every slice of the cut (or those in `only`), from the store where it has them; in order.

    Each result is committed before the next is awaited; without a store results are kept in memory alone.
    """
    items = range(len(work.cut)) if only is None else only
    there = [replace(SliceRecord(*row), complete=bool(row[4])) for row in (store.rows() if store else ())]
    known = {record.index for record in there}
    open_items = [item for item in items if item not in known]
    # Neighbours are alike: in random order rate and share are soon those of the whole, and chunks cost the same.
    random.Random(0).shuffle(open_items)  # noqa: S311 - nothing secret
    tally = _Tally(len(known), len(known) + len(open_items), work.network.units)
    for record in there:
        tally.count(record)
    size = max(1, min(CHUNK, len(open_items) // (8 * jobs)))
    for _, record in executor.run(work, chunked(open_items, size)):
        if store:
            store.add([astuple(record)])
        there.append(record)
        tally.count(record)
        tally.done += 1
        if progress:
            progress(tally.now())
    return sorted((record for record in there if record.index in items), key=lambda record: record.index)


class _Tally:
    """Counts for the progress."""

    def __init__(self, done: int, total: int, units: int) -> None:
        self.done, self.total, self.units = done, total, units
        self.before, self.begin = done, time.monotonic()
        self.stuck = self.partial = self.counted = 0

    def count(self, record: SliceRecord) -> None:
        self.stuck += record.stuck + record.relaxed
        self.partial += not record.complete
        self.counted += 1

    def now(self) -> Progress:
        rate = (self.done - self.before) / max(1e-9, time.monotonic() - self.begin)
        share = self.stuck / max(1, self.counted * self.units)
        return Progress(self.done, self.total, rate, share, self.partial)
