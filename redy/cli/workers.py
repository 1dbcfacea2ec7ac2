"""Where long work runs and how it goes on after an interruption: the options that `slice` and `batch` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from redy.slicing.executor import Executor

_OPTIONS = (
    click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes."),
    click.option("--scheduler", help="Address of a Dask scheduler (tcp://host:8786) to run on instead."),
    click.option("--resume", is_flag=True, help="Go on with the results that the store holds."),
    click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Write the results as CSV, too."),
)


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --jobs, --scheduler, --resume and --csv (as csv_path)."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def executor(jobs: int, scheduler: str | None) -> Executor:
    """Where the work runs, by the options."""
    from redy.slicing.cluster import Cluster
    from redy.slicing.executor import Here, Processes

    if scheduler is not None:
        return Cluster(scheduler)
    return Here() if jobs == 1 else Processes(jobs)
