"""The results store: one SQLite file in which every finished slice or job is durable.

Table `run` (key, value) holds the digests of what the results depend on; table `results` one row a finished item, with
the columns that the kind of run names; its first column is the item's number and the primary key, so nothing is entered
twice. Write-ahead logging with synchronous commits: a row that was committed survives kill -9 and a power cut.
"""

from __future__ import annotations

import csv
import itertools
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from redy.errors import InputError
from redy.formats.files import write_atomically

FORMAT = "1"
GROUP = 1 << 16
"""Rows of a Parquet row group."""


def require_parquet() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet.

    Raises:
        InputError: pyarrow is missing.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to load
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise InputError("--parquet: needs pyarrow; install it with `pip install 'redy[parquet]'`") from error
    return pa, parquet


class Store:
    """An open store; a context manager. Only one process has it open for writing.

    Args:
        path: the SQLite file, made if it is not there.
        columns: name -> SQLite type of each result column; the first is the integer key.
        digests: what results depend on, by name.
        resume: go on with what the file holds; without it a file that holds results is refused.

    Raises:
        InputError: the file is in use, is no store, was made from something else, or holds results and `resume` is off.
    """

    def __init__(
        self, path: str | Path, columns: Mapping[str, str], digests: Mapping[str, str], *, resume: bool = False
    ) -> None:
        self.path, self.columns = Path(path), dict(columns)
        self._lock = self._locked()
        try:
            self._connection = sqlite3.connect(self.path, isolation_level=None)
            self._prepare(digests, resume)
        except sqlite3.Error as error:
            self.close()
            raise InputError(f"{self.path}: is not a results store of redy ({error}); choose another path") from error
        except InputError:
            self.close()
            raise

    def _locked(self) -> FileLock:
        """A lock that ends with the process, however it ends."""
        lock = FileLock(self.path.with_name(self.path.name + ".lock"), thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise InputError(f"{self.path}: another run is writing to this store; wait for it or stop it") from error
        except OSError as error:
            raise InputError(f"{self.path}: cannot write here ({error.strerror}); choose an existing folder") from error
        return lock

    def _prepare(self, digests: Mapping[str, str], resume: bool) -> None:
        run = self._connection
        run.execute("PRAGMA journal_mode=WAL")
        run.execute("PRAGMA synchronous=FULL")
        names = {row[0] for row in run.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        wanted = {"format": FORMAT, **digests}
        if not names:
            key, *others = self.columns
            body = ", ".join(f'"{name}" {self.columns[name]}' for name in others)
            run.execute("BEGIN")
            run.execute("CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT)")
            run.execute(f'CREATE TABLE results ("{key}" INTEGER PRIMARY KEY, {body})')
            run.executemany("INSERT INTO run VALUES (?, ?)", wanted.items())
            run.execute("COMMIT")
            return
        if not {"run", "results"} <= names:
            raise InputError(f"{self.path}: is a database, but not a results store of redy; choose another path")
        there = dict(run.execute("SELECT key, value FROM run"))
        for name, value in wanted.items():
            if there.get(name) != value:
                raise InputError(
                    f"{self.path}: was made with another {name}; give the same {name} as before, or another store"
                )
        if self.done() and not resume:
            raise InputError(
                f"{self.path}: holds {self.done()} results; go on with --resume, or delete the file to begin again"
            )

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Enter finished results, durably, in one transaction."""
        places = ", ".join("?" * len(self.columns))
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(f"INSERT INTO results VALUES ({places})", rows)  # noqa: S608 - placeholders only
        self._connection.execute("COMMIT")

    def done(self) -> int:
        """How many results there are."""
        return int(self._connection.execute("SELECT count(*) FROM results").fetchone()[0])

    def keys(self) -> set[int]:
        """The numbers of the finished items."""
        key = next(iter(self.columns))
        return {row[0] for row in self._connection.execute(f'SELECT "{key}" FROM results')}  # noqa: S608 - own name

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Every result in the order of its number."""
        names = ", ".join(f'"{name}"' for name in self.columns)
        yield from self._connection.execute(f"SELECT {names} FROM results ORDER BY 1")  # noqa: S608 - own names

    def export_csv(self, path: str | os.PathLike[str]) -> None:
        """Every result as CSV with a header, bytes in hexadecimal."""

        def write(temporary: Path) -> None:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(self.columns)
                writer.writerows([v.hex() if isinstance(v, bytes) else v for v in row] for row in self.rows())

        write_atomically(path, write)

    def export_parquet(self, path: str | os.PathLike[str]) -> None:
        """Every result as Parquet, with the types of the store: int64, double, string, binary.

        Raises:
            InputError: pyarrow is missing.
        """
        pa, parquet = require_parquet()
        types = {"INTEGER": pa.int64(), "REAL": pa.float64(), "TEXT": pa.string(), "BLOB": pa.binary()}
        key, *_ = self.columns
        schema = pa.schema(
            pa.field(name, types[kind.split()[0]], nullable=name != key and "NOT NULL" not in kind)
            for name, kind in self.columns.items()
        )

        def write(temporary: Path) -> None:
            with parquet.ParquetWriter(temporary, schema) as writer:
                rows = self.rows()
                while group := list(itertools.islice(rows, GROUP)):
                    columns = zip(zip(*group, strict=True), schema, strict=True)
                    arrays = [pa.array(column, type=field.type) for column, field in columns]
                    writer.write_batch(pa.record_batch(arrays, schema=schema))

        write_atomically(path, write)

    def close(self) -> None:
        """Let go of the file."""
        if hasattr(self, "_connection"):
            self._connection.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
