"""What a run of jobs that goes on makes again: jobs that failed, and results that are no longer there."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from redy.errors import InputError
from redy.runs.jobs import Job, bounds_digest, model_digest, waves

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


def to_make_again(store: Path, jobs: Mapping[int, Job], rows: Iterable[Row]) -> dict[int, Again]:
    """By number the jobs with a row that does not stand: they failed, or what they wrote is gone or is another file.

    A job that runs after one that is made is made again, too: what it reads may be another file then.

    Args:
        store: path of the store, for errors.
        jobs: the jobs by number, in the order of the list.
        rows: rows with the columns job, status, error, seconds, attempts, model_sha256, bounds_sha256, output_sha256.

    Raises:
        InputError: the model or the box of a job that was done is not the one that it was done with.
    """
    # A row holds a whole report, and there may be many.
    there = {row["job"]: {name: row[name] for name in _READ} for row in rows}
    numbers = list(jobs)
    reasons = {number: _reason(row, jobs[number]) for number, row in there.items()}
    for place in itertools.chain.from_iterable(waves(list(jobs.values()))):
        number = numbers[place]
        for before in (numbers[k] for k in jobs[number].after):
            if number in there and (before not in there or reasons[before]):
                reasons[number] = reasons[number] or f"job {before}, after which it runs, is made"
    # Many jobs share a model or a box.
    model: Callable[[str], str | None] = cache(lambda path: model_digest(Job(path, "", "")))
    bounds: Callable[[str], str | None] = cache(lambda source: bounds_digest(Job("", source, "")))
    again = {}
    for number, row in there.items():
        job, reason = jobs[number], reasons[number]
        if row["status"] == "done" and not any(numbers[k] not in there or reasons[numbers[k]] for k in job.after):
            if model(job.model) != row["model_sha256"]:
                raise _other(store, row, "model", job.model)
            if bounds(job.bounds) != row["bounds_sha256"]:
                raise _other(store, row, "box", job.bounds)
        if reason is not None:
            last = {name: row[name] for name in ("status", "error", "seconds")} | {"made_again": reason}
            again[number] = Again(reason, (*json.loads(row["attempts"]), last))
    return again


_READ = ("job", "status", "error", "seconds", "attempts", "model_sha256", "bounds_sha256", "output_sha256")


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
