"""Where long work runs and how it goes on after an interruption: the options that `slice` and `batch` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from redy.runs.store import Store

_OPTIONS = (
    click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes."),
    click.option("--scheduler", help="Address of a Dask scheduler (tcp://host:8786) to run on instead."),
    click.option("--resume", is_flag=True, help="Go on with the results that the store holds."),
    click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Write the results as CSV, too."),
    click.option("--parquet", type=click.Path(path_type=Path), help="Write them as Parquet, too (redy[parquet])."),
)


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --jobs, --scheduler, --resume, --csv (as csv_path) and --parquet."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_exports(parquet: Path | None) -> None:
    """Find out before the work whether Parquet can be written.

    Raises:
        InputError: pyarrow is missing.
    """
    from redy.runs.store import require_parquet

    if parquet is not None:
        require_parquet()


def export(results: Store, csv_path: Path | None, parquet: Path | None) -> None:
    """Write the results of a store in the forms asked for."""
    if csv_path is not None:
        results.export_csv(csv_path)
    if parquet is not None:
        results.export_parquet(parquet)


def say_discarded(results: Store) -> None:
    """Say on stderr how many damaged results of an earlier run are made again."""
    if results.discarded:
        click.echo(f"{results.path}: {results.discarded} results were damaged and are made again", err=True)
