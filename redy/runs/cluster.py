"""The executor on a Dask cluster (`pip install 'redy[cluster]'`); docs/cluster.md tells how to start one."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from redy.errors import CheckFailed, InputError
from redy.runs.executor import DEATHS, Executor, Here, Processes, Result, Work


@dataclass(frozen=True, slots=True)
class Cluster:
    """On the workers of the Dask scheduler at `address` ("tcp://host:8786").

    The scheduler re-runs a chunk whose worker was lost. Workers need redy installed, in the same version.
    """

    address: str
    connect_timeout: float = 20.0

    def run(self, work: Work[Result], chunks: Sequence[Sequence[int]]) -> Iterator[tuple[int, Result]]:
        """As chunks come back.

        Raises:
            InputError: dask.distributed is not installed, or no scheduler answers.
        """
        try:
            import distributed  # noqa: PLC0415 - an extra, imported when it is asked for
        except ImportError as error:
            raise InputError(
                "--scheduler needs dask.distributed; install it with: pip install 'redy[cluster]'"
            ) from error
        try:
            cluster: Any = distributed  # it ships no types
            client = cluster.Client(self.address, timeout=self.connect_timeout, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"--scheduler {self.address}: no Dask scheduler answers there ({_one_line(error)})"
            ) from error
        with client:
            # A task, not scattered data: if its only holder is lost the scheduler makes it again.
            loaded = client.submit(pickle.loads, pickle.dumps(work), pure=False)
            futures = [client.submit(_run_chunk, loaded, list(chunk), pure=False) for chunk in chunks if chunk]
            try:
                with client.as_current():
                    finished = cluster.as_completed(futures)
                for future in finished:
                    yield from future.result()
                    future.release()
            except cluster.KilledWorker as error:
                raise CheckFailed(
                    f"{DEATHS} cluster workers or more died on one chunk; is there enough memory?"
                ) from error
            finally:
                client.cancel(futures)


def executor_of(jobs: int, scheduler: str | None = None) -> Executor:
    """Where work runs: on the Dask cluster of a scheduler, in this process, or in `jobs` processes.

    Raises:
        InputError: fewer than one process.
    """
    if scheduler is not None:
        return Cluster(scheduler)
    if jobs < 1:
        raise InputError(f"--jobs {jobs}: must be at least 1")
    return Here() if jobs == 1 else Processes(jobs)


def _run_chunk(work: Work[Any], chunk: list[int]) -> list[tuple[int, Any]]:
    return [(item, work(item)) for item in chunk]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
