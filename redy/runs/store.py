"""The results store: one SQLite file in which every finished slice or job is durable.

Table `run` (key, value) holds the digests of what the results depend on; table `results` one row a finished item, with
the columns that the kind of run names and a checksum; its first column is the item's number and the primary key, so
nothing is entered twice. A row whose checksum does not fit is taken out when the store is opened and made again.
Write-ahead logging with synchronous commits: a row that was committed survives kill -9 and a power cut.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from redy.errors import InputError
from redy.formats.files import write_atomically

FORMAT = "2"
CHECK = "checksum"
"""The column behind the results: SHA-256 over the digests of the run and all other columns of the row."""
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


def _refused(path: Path, error: Exception) -> InputError:
    if "full" in str(error):
        return InputError(
            f"{path}: the disk is full; free some room and go on with --resume, finished results are kept"
        )
    return InputError(f"{path}: is not a results store of redy, or is damaged ({error}); choose another path")


class Store:
    """An open store; a context manager. Only one process has it open for writing.

    Args:
        path: the SQLite file, made if it is not there.
        columns: name -> SQLite type of each result column; the first is the integer key.
        digests: what results depend on, by name.
        resume: go on with what the file holds; without it a file that holds results is refused.

    Attributes:
        discarded: how many damaged results were taken out when the store was opened; they are made again.

    Raises:
        InputError: the file is in use, is no store, was made from something else, or holds results and `resume` is off.
    """

    def __init__(
        self, path: str | Path, columns: Mapping[str, str], digests: Mapping[str, str], *, resume: bool = False
    ) -> None:
        self.path, self.columns = Path(path), dict(columns)
        self._lock = self._locked()
        try:
            self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._prepare(digests, resume)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self.close()
            raise _refused(self.path, error) from error
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
        self.discarded = 0
        self._run = json.dumps(wanted, sort_keys=True)
        if not names:
            key, *others = self.columns
            body = ", ".join(f'"{name}" {self.columns[name]}' for name in others)
            run.execute("BEGIN")
            run.execute("CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT)")
            run.execute(f'CREATE TABLE results ("{key}" INTEGER PRIMARY KEY, {body}, {CHECK} TEXT NOT NULL)')
            run.executemany("INSERT INTO run VALUES (?, ?)", wanted.items())
            run.execute("COMMIT")
            return
        if not {"run", "results"} <= names:
            raise InputError(f"{self.path}: is a database, but not a results store of redy; choose another path")
        found = run.execute("PRAGMA integrity_check").fetchone()[0]
        if found != "ok":
            raise InputError(f"{self.path}: is damaged ({' '.join(str(found).split())}); delete it and run again")
        there = dict(run.execute("SELECT key, value FROM run"))
        if there.get("format") != FORMAT:
            raise InputError(
                f"{self.path}: has store format {there.get('format')}, this redy writes {FORMAT}; choose another path"
            )
        self._check_columns()
        for name, value in wanted.items():
            if there.get(name) != value:
                raise InputError(
                    f"{self.path}: was made with another {name}; give the same {name} as before, or another store"
                )
        if self.done() and not resume:
            raise InputError(
                f"{self.path}: holds {self.done()} results; go on with --resume, or delete the file to begin again"
            )

        self.discarded = self._take_out_bad_rows()

    def _check_columns(self) -> None:
        """Refuse a store of another command or version; SQLite would read an unknown quoted column as a string."""
        found = [(row[1], row[2]) for row in self._connection.execute("PRAGMA table_info(results)")]
        wanted = [(name, kind.split()[0]) for name, kind in self.columns.items()]
        if found != [*wanted, (CHECK, "TEXT")]:
            raise InputError(
                f"{self.path}: holds results of another command or another version of redy; choose another path"
            )

    def _take_out_bad_rows(self) -> int:
        """Delete rows whose checksum does not fit; how many they were."""
        bad = [(key,) for key, fits, _ in self._checked() if not fits]
        if bad:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM results WHERE rowid = ?", bad)
            self._connection.execute("COMMIT")
        return len(bad)

    def _checked(self) -> Iterator[tuple[int, bool, tuple[Any, ...]]]:
        """Per row its number, whether its checksum fits, and its result."""
        names = ", ".join(f'"{name}"' for name in self.columns)
        query = f"SELECT rowid, {CHECK}, {names} FROM results ORDER BY 1"  # noqa: S608 - own names
        for key, checksum, *row in self._connection.execute(query):
            yield key, checksum == self._checksum(row), tuple(row)

    def _plain(self, row: Sequence[Any]) -> list[Any]:
        """The row as SQLite gives it back: integers and floats as the columns say."""
        kinds = {"INTEGER": int, "REAL": float}
        types = [kinds.get(kind.split()[0]) for kind in self.columns.values()]
        return [v if v is None or kind is None else kind(v) for v, kind in zip(row, types, strict=True)]

    def _checksum(self, row: Sequence[Any]) -> str:
        text = hashlib.sha256(self._run.encode())
        for value in row:
            data = value if isinstance(value, bytes) else repr(value).encode()
            text.update(f"{type(value).__name__} {len(data)} ".encode() + data)
        return text.hexdigest()

    def add(self, rows: Iterable[Sequence[Any]], *, replace: bool = False) -> None:
        """Enter finished results, durably, in one transaction; with `replace` in place of those of the same number.

        Raises:
            InputError: the disk is full; what was entered before is kept.
        """
        places = ", ".join("?" * (len(self.columns) + 1))
        verb = "INSERT OR REPLACE" if replace else "INSERT"
        entered = [(*plain, self._checksum(plain)) for plain in map(self._plain, rows)]
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(f"{verb} INTO results VALUES ({places})", entered)
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise _refused(self.path, error) from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def done(self) -> int:
        """How many results there are."""
        return int(self._connection.execute("SELECT count(*) FROM results").fetchone()[0])

    def keys(self) -> set[int]:
        """The numbers of the finished items."""
        key = next(iter(self.columns))
        return {row[0] for row in self._connection.execute(f'SELECT "{key}" FROM results')}  # noqa: S608 - own name

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Every result in the order of its number.

        Raises:
            InputError: a row is not what was entered.
        """
        try:
            for key, fits, row in self._checked():
                if not fits:
                    raise InputError(f"{self.path}: result {key} is damaged; go on with --resume to make it again")
                yield row
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _refused(self.path, error) from error

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
