"""The jobs of `redy batch`: model, box, options and the file to write, in which order they run, and their numbers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redy.errors import InputError
from redy.formats.files import file_digest


@dataclass(frozen=True, slots=True)
class Job:
    """One reduction.

    Attributes:
        model: path of the ONNX file.
        bounds: path of the box file, or JSON text such as "[-1,1]".
        output: path of the reduced model.
        options: options of `redy reduce`.
        after: places in the list, from 0, of the jobs that must be done before.
    """

    model: str
    bounds: str
    output: str
    options: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[int, ...] = ()

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes it the same job in another run."""
        return self.model, self.bounds, self.output, json.dumps(self.options, sort_keys=True)


def inline(bounds: str) -> bool:
    """Whether the source of a box is its text and not a file."""
    return bounds.lstrip().startswith(("[", "{"))


def default_output(model: str, bounds: str, folder: Path) -> str:
    """Where a job writes that names no output: MODEL--BOX.onnx, by the name of the box or a digest of its text."""
    return str(folder / f"{model}--{box_name(bounds)}.onnx")


def box_name(bounds: str) -> str:
    """The name of a box in a path."""
    return hashlib.sha256(bounds.encode()).hexdigest()[:8] if inline(bounds) else Path(bounds).stem


def checked(jobs: list[Job]) -> list[Job]:
    """The jobs, if no two write one file and every file that a job writes and another reads is written before.

    Raises:
        InputError: they do not fit together.
    """
    writers: dict[str, int] = {}
    for place, job in enumerate(jobs):
        target = os.path.realpath(job.output)
        if target in writers:
            raise InputError(
                f"jobs {writers[target] + 1} and {place + 1} both write {job.output}; give them an output each"
            )
        if os.path.realpath(job.model) == target:
            raise InputError(f"job {place + 1}: its output {job.output} is the model itself")
        writers[target] = place
    _ordered(jobs)
    for place, job in enumerate(jobs):
        writer = writers.get(os.path.realpath(job.model))
        if writer is not None and not _runs_after(jobs, place, writer):
            raise InputError(
                f"job {place + 1}: reads {job.model}, which job {writer + 1} writes; say so with after {writer + 1}"
            )
    return jobs


def waves(jobs: Sequence[Job]) -> list[list[int]]:
    """Places of jobs in an order in which every job comes in a later group than those it runs after."""
    level = [0] * len(jobs)
    for place in _ordered(jobs):
        level[place] = max((level[k] + 1 for k in jobs[place].after), default=0)
    groups: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    for place, number in enumerate(level):
        groups[number].append(place)
    return groups


def _runs_after(jobs: Sequence[Job], place: int, other: int) -> bool:
    """Whether a job starts only when another one is done."""
    seen, stack = set[int](), [place]
    while stack:
        after = jobs[stack.pop()].after
        if other in after:
            return True
        stack += [k for k in after if k not in seen]
        seen.update(after)
    return False


def _ordered(jobs: Sequence[Job]) -> list[int]:
    """Places of jobs, each behind those it runs after.

    Raises:
        InputError: `after` names no job, or goes in a circle.
    """
    readers: dict[int, list[int]] = {}
    for place, job in enumerate(jobs):
        for other in job.after:
            if not 0 <= other < len(jobs) or other == place:
                raise InputError(
                    f"job {place + 1}: runs after {other + 1}; after must name other jobs, 1 to {len(jobs)}"
                )
            readers.setdefault(other, []).append(place)
    waiting = [len(set(job.after)) for job in jobs]
    order = [place for place, count in enumerate(waiting) if not count]
    for place in order:
        for reader in set(readers.get(place, ())):
            waiting[reader] -= 1
            if not waiting[reader]:
                order.append(reader)
    if len(order) < len(jobs):
        stuck = next(place for place, count in enumerate(waiting) if count)
        raise InputError(f"job {stuck + 1}: runs after itself by its column after; jobs must not go in a circle")
    return order


def numbered(store: Path, jobs: Sequence[Job], there: Mapping[int, tuple[str, str, str, str]]) -> list[int]:
    """The number in the store of every job: that of its row, or the next free one.

    Args:
        store: path of the store, for errors.
        jobs: the list.
        there: by number the identity of each job that has a row.

    Raises:
        InputError: a row is of no job in the list.
    """
    known = {identity: number for number, identity in there.items()}
    missing = set(known) - {job.identity for job in jobs}
    if missing:
        number = min(known[identity] for identity in missing)
        model, bounds, output, _ = there[number]
        raise InputError(
            f"{store}: was made with another list of jobs: job {number} ({model} on {bounds} into {output}) is not in "
            "this one, or with other options; give a list that has it, or another store"
        )
    numbers, last = list[int](), 0
    taken = set(there)
    for job in jobs:
        if job.identity in known:
            numbers.append(known[job.identity])
            continue
        last += 1
        while last in taken:
            last += 1
        numbers.append(last)
    return numbers


def model_digest(job: Job) -> str | None:
    """SHA-256 of the model and its external data; None where they cannot be read (the job itself says why)."""
    try:
        return file_digest(Path(job.model))
    except (OSError, ValueError):
        return None


def bounds_digest(job: Job) -> str | None:
    """SHA-256 of the file of the box, or of its text where it is given inline; None where it cannot be read."""
    if inline(job.bounds):
        return hashlib.sha256(job.bounds.encode()).hexdigest()
    try:
        return hashlib.sha256(Path(job.bounds).read_bytes()).hexdigest()
    except (OSError, ValueError):
        return None
