"""What a run of jobs that goes on makes again: jobs that failed, and results that are no longer there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from redy.errors import InputError
from redy.runs.jobs import Job, bounds_digest, model_digest

Row = Mapping[str, Any]
"""A job's row of the store, by column."""


@dataclass(frozen=True, slots=True)
class Again:
    """Why a job that has a row is made again, and the attempts before.

    Attributes:
        reason: for the user, such as "failed before".
        attempts: what came of each attempt so far, in order: {"status", "error", "seconds", "made_again": reason}.
    """

    reason: str
    attempts: tuple[Mapping[str, Any], ...]


def written_digest(output: str | Path) -> str | None:
    """SHA-256 of a written file; None where it is not there."""
    try:
        return hashlib.sha256(Path(output).read_bytes()).hexdigest()
    except OSError:
        return None


def to_make_again(store: Path, jobs: Sequence[Job], rows: Iterable[Row]) -> dict[int, Again]:
    """By number the jobs with a row that does not stand: they failed, or what they wrote is gone or is another file.

    Args:
        store: path of the store, for errors.
        jobs: the list of jobs; job k of a row is jobs[k - 1].
        rows: rows with the columns job, status, error, seconds, attempts, model_sha256, bounds_sha256, output_sha256.

    Raises:
        InputError: the model or the box of a job that was done is not the one that it was done with.
    """
    # Many jobs share a model or a box.
    model: Callable[[str], str | None] = cache(lambda path: model_digest(Job(path, "", "")))
    bounds: Callable[[str], str | None] = cache(lambda source: bounds_digest(Job("", source, "")))
    again = {}
    for row in rows:
        job = jobs[row["job"] - 1]
        if row["status"] == "done":
            if model(job.model) != row["model_sha256"]:
                raise _other(store, row, "model", job.model)
            if bounds(job.bounds) != row["bounds_sha256"]:
                raise _other(store, row, "box", job.bounds)
        reason = _reason(row, job)
        if reason is not None:
            last = {name: row[name] for name in ("status", "error", "seconds")} | {"made_again": reason}
            again[row["job"]] = Again(reason, (*json.loads(row["attempts"]), last))
    return again


def _other(store: Path, row: Row, what: str, now: str) -> InputError:
    return InputError(
        f"{store}: job {row['job']} was made with another {what} than {now} is now; give the same {what} as before, or "
        "another store"
    )


def _reason(row: Row, job: Job) -> str | None:
    if row["status"] == "failed":
        return "failed before"
    found = written_digest(job.output)
    if found == row["output_sha256"]:
        return None
    return "its output was gone" if found is None else "its output was another file than was written"
