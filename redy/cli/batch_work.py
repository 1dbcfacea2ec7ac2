"""What one job of `redy batch` does, and its row in the store."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redy.errors import RedyError

if TYPE_CHECKING:
    from redy.runs.jobs import Job

COLUMNS = {
    "job": "INTEGER",
    "model": "TEXT NOT NULL",
    "bounds": "TEXT NOT NULL",
    "output": "TEXT NOT NULL",
    "options": "TEXT NOT NULL",
    "status": "TEXT NOT NULL",
    "error": "TEXT NOT NULL",
    "units_before": "INTEGER",
    "units_after": "INTEGER",
    "parameters_before": "INTEGER",
    "parameters_after": "INTEGER",
    "multiply_adds_before": "INTEGER",
    "multiply_adds_after": "INTEGER",
    "undecided": "INTEGER",
    "seconds": "REAL NOT NULL",
    "report": "TEXT",
    "model_sha256": "TEXT",
    "bounds_sha256": "TEXT",
    "output_sha256": "TEXT",
    "attempts": "TEXT NOT NULL",
}
"""The columns of a job; `status` is done or failed, `options` a JSON object, `report` the document of docs/report.md,
`attempts` a JSON list of the attempts before this one (redy.runs.attempts)."""


@dataclass(frozen=True, slots=True)
class BatchWork:
    """A picklable function of a job's number, whose result is the job's row in the store."""

    jobs: Mapping[int, Job]
    attempts: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """By number the attempts before, for jobs that are made again."""

    def __call__(self, number: int) -> tuple[Any, ...]:
        """Reduce, write and compare as `redy reduce` does; a failure becomes a row, not an exception."""
        from redy.runs.attempts import written_digest
        from redy.runs.jobs import bounds_digest, model_digest

        job, begin = self.jobs[number], time.perf_counter()
        read = (model_digest(job), bounds_digest(job))
        try:
            document = reduced(job)
        except (RedyError, OSError, MemoryError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
        except Exception as error:  # noqa: BLE001 - one job's fault of redy must not end the others
            text = f"{type(error).__name__}: {' '.join(str(error).split())} (a fault of redy)"
        else:
            before, after = document["original"], document["reduced"]
            sizes = [part[name] for name in ("units", "parameters", "multiply_adds") for part in (before, after)]
            results = (*sizes, len(document["undecided"]), time.perf_counter() - begin, json.dumps(document))
            attempts = json.dumps(self.attempts.get(number, ()))
            return (number, *job.identity, "done", "", *results, *read, written_digest(job.output), attempts)
        return self.failed(number, text, time.perf_counter() - begin, read)

    def failed(
        self, number: int, error: str, seconds: float = 0.0, read: tuple[str | None, str | None] = (None, None)
    ) -> tuple[Any, ...]:
        """The row of a job that failed, with the digests of what it read."""
        attempts = json.dumps(self.attempts.get(number, ()))
        identity = self.jobs[number].identity
        return (number, *identity, "failed", error, *[None] * 7, seconds, None, *read, None, attempts)


def reduced(job: Job) -> dict[str, Any]:
    """Do a job: the report of the reduction."""
    from redy.cli.running import Task, run_task
    from redy.formats.boxes import read_box
    from redy.formats.onnx_read import read_network

    options = dict(job.options)
    limit = options.pop("time_limit", None)
    if "criteria" in options:
        options["criteria"] = tuple(name.strip() for name in options["criteria"].split(",") if name.strip())
    model = Path(job.model)
    box = read_box(job.bounds, read_network(model).input)
    return run_task(Task(model, box, Path(job.output), options), limit)
