"""Running independent pieces of work: here, in processes of this machine, or on a Dask cluster.

An executor gets the work (a picklable function of an item's number) and chunks of items, and yields `(item, result)` in
whatever order results come. Since the work is a pure function, the set of results is the same for every executor.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, TypeVar

from redy.errors import CheckFailed
from redy.reduction.warmup import compile_for_workers

Result = TypeVar("Result")
Work = Callable[[int], Result]

DEATHS = 3
"""After how many deaths of a worker on the same item the run is given up."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Executor(Protocol):
    """Whatever can run work on chunks of items."""

    def run(self, work: Work[Result], chunks: Sequence[Sequence[int]]) -> Iterator[tuple[int, Result]]:
        """Each item's result, once, as it comes.

        Raises:
            CheckFailed: workers kept dying on the same item.
            Exception: whatever the work raised.
        """


@dataclass(frozen=True, slots=True)
class Here:
    """In this process, one item after the other."""

    def run(self, work: Work[Result], chunks: Sequence[Sequence[int]]) -> Iterator[tuple[int, Result]]:
        """In the order of the chunks."""
        for chunk in chunks:
            for item in chunk:
                yield item, work(item)


@dataclass(slots=True)
class _Worker:
    """A process, this end of its pipe, and the items of its chunk that it has not answered."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    open: deque[int] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class Processes:
    """In `jobs` processes of this machine.

    Results come over a pipe item by item, so a worker that dies loses the item it was at; the rest of its chunk goes
    back to the queue and a new worker takes its place.
    """

    jobs: int

    def run(self, work: Work[Result], chunks: Sequence[Sequence[int]]) -> Iterator[tuple[int, Result]]:
        """As they come."""
        payload = pickle.dumps(work)
        compile_for_workers()
        waiting, deaths = deque(deque(chunk) for chunk in chunks if chunk), dict[int, int]()
        workers: dict[Connection, _Worker] = {}
        try:
            while waiting or workers:
                while waiting and len(workers) < self.jobs:
                    worker = _start(payload)
                    workers[worker.pipe] = worker
                    _give(worker, waiting)
                for pipe in wait(list(workers)):
                    assert isinstance(pipe, Connection)
                    worker = workers[pipe]
                    try:
                        item, result, error = pipe.recv()
                    except (EOFError, OSError):
                        del workers[pipe]
                        _bury(worker, waiting, deaths)
                        continue
                    if error is not None:
                        raise error
                    worker.open.remove(item)
                    if not worker.open and not _give(worker, waiting):
                        del workers[pipe]
                        _stop(worker)
                    yield item, result
        finally:
            for worker in workers.values():
                worker.process.kill()
                _stop(worker)


def _start(payload: bytes) -> _Worker:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, payload), daemon=True)
    # One thread for each process: the libraries read these when the child imports them.
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    theirs.close()
    return _Worker(process, mine)


def _give(worker: _Worker, waiting: deque[deque[int]]) -> bool:
    """Hand the next chunk to a worker; False if there is none."""
    if not waiting:
        return False
    worker.open = waiting.popleft()
    with contextlib.suppress(OSError):  # a worker that just died is noticed when its pipe is read
        worker.pipe.send(list(worker.open))
    return True


def _stop(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.join()


def _bury(worker: _Worker, waiting: deque[deque[int]], deaths: dict[int, int]) -> None:
    """A worker died: what is open of its chunk waits again, unless its first item has been fatal too often."""
    _stop(worker)
    if not worker.open:
        return
    item = worker.open[0]
    deaths[item] = deaths.get(item, 0) + 1
    if deaths[item] >= DEATHS:
        code = worker.process.exitcode
        raise CheckFailed(f"item {item}: {DEATHS} workers died on it (exit code {code}); is there enough memory?")
    waiting.appendleft(worker.open)


def _serve(pipe: Connection, payload: bytes) -> None:
    """The life of a worker: chunks in, results out one by one, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work = pickle.loads(payload)  # noqa: S301 - made by the parent process
    with contextlib.suppress(EOFError, OSError):
        while True:
            for item in pipe.recv():
                pipe.send(_answer(work, item))


def _answer(work: Work[Any], item: int) -> tuple[int, Any, BaseException | None]:
    try:
        return item, work(item), None
    except Exception as error:  # noqa: BLE001 - raised again in the parent
        with contextlib.suppress(Exception):
            pickle.loads(pickle.dumps(error))  # noqa: S301 - can it travel?
            return item, None, error
        return item, None, CheckFailed(f"item {item}: {type(error).__name__}: {error}")


def chunked(items: Sequence[int], size: int) -> list[Sequence[int]]:
    """The items in chunks of at most `size`, in order."""
    return [items[start : start + size] for start in range(0, len(items), size)]
