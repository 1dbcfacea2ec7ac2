"""Entering results while others are made: what comes while one transaction is written goes into the next one.

A commit waits for the disk, often longer than a short job takes. In a thread of its own it holds nobody up, and many
results share one; still none waits longer than the commit before it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Self

from redy.runs.store import Store

Row = tuple[Any, ...]

WAITING = 1000
"""Results that wait to be written, at most."""


class Entering:
    """A context in which results are entered in a store, in place of earlier ones of the same number.

    Nothing else may use the store until the context is left; all results are durable then.

    Args:
        store: an open store.
        then: called with each result when it is durable, in the thread that writes.
    """

    def __init__(self, store: Store, then: Callable[[Row], None]) -> None:
        self._store, self._then = store, then
        self._rows: queue.Queue[Row | None] = queue.Queue(WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="results store", daemon=True)

    def enter(self, row: Row) -> None:
        """Hand a result over.

        Raises:
            InputError: an earlier one could not be written.
        """
        self._raise()
        self._rows.put(row)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._rows.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        while (row := self._rows.get()) is not None:
            rows = [row]
            # One call of get for each that is there; the end mark goes back.
            while not self._rows.empty():
                more = self._rows.get()
                if more is None:
                    self._rows.put(None)
                    break
                rows.append(more)
            # After an error rows are taken and dropped, so that who hands them over never waits for room.
            if self._error is None:
                try:
                    self._store.add(rows, replace=True)
                    for entered in rows:
                        self._then(entered)
                except BaseException as error:  # noqa: BLE001 - raised again where results are handed over
                    self._error = error
