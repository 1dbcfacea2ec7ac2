"""A list of jobs for `redy batch`: model, box, options and the file to write, from CSV, JSON lines or globs."""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from redy.errors import InputError
from redy.formats.files import file_digest

OPTIONS: dict[str, type] = {
    "preserve": str,
    "tolerance": float,
    "winner": str,
    "engine": str,
    "solver": str,
    "criteria": str,
    "effort": str,
    "time_limit": float,
    "seed": int,
}
"""The options a job may have, with the words of `redy reduce`, and their types."""


@dataclass(frozen=True, slots=True)
class Job:
    """One reduction.

    Attributes:
        model: path of the ONNX file.
        bounds: path of the box file, or JSON text such as "[-1,1]".
        output: path of the reduced model.
        options: options of `redy reduce`.
    """

    model: str
    bounds: str
    output: str
    options: Mapping[str, Any] = field(default_factory=dict)


def read_jobs(path: Path, folder: Path) -> list[Job]:
    """The jobs of a .csv or .jsonl file, in order; paths in it are relative to it, outputs go to `folder`.

    Raises:
        InputError: the file cannot be read, or a row is no job; the text names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a .csv or .jsonl file of jobs") from error
    if path.suffix not in {".csv", ".jsonl"}:
        raise InputError(f"{path}: the name must end in .csv or .jsonl")
    rows = list(_csv_rows(path, text) if path.suffix == ".csv" else _json_rows(path, text))
    if not rows:
        raise InputError(f"{path}: holds no job")
    return _distinct([_job(where, row, path.parent, folder) for where, row in rows])


def _csv_rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text))
    for row in reader:
        where = f"{path}: line {reader.line_num}"
        if None in row or None in row.values():
            raise InputError(f"{where}: does not have the {len(reader.fieldnames or ())} fields of the header")
        yield where, {name: value for name, value in row.items() if value != ""}


def _json_rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where}: is not JSON ({error})") from error
        if not isinstance(row, dict) or not isinstance(row.get("options", {}), dict):
            raise InputError(f'{where}: must be an object such as {{"model": "a.onnx", "bounds": "a.json"}}')
        yield where, {**{k: v for k, v in row.items() if k != "options"}, **row.get("options", {})}


def _job(where: str, row: dict[str, Any], base: Path, folder: Path) -> Job:
    for name in ("model", "bounds"):
        if name not in row:
            raise InputError(f"{where}: has no {name}")
    bounds = row["bounds"]
    text = bounds if isinstance(bounds, str) else json.dumps(bounds)
    inline = text.lstrip().startswith(("[", "{"))
    unknown = sorted(set(row) - {"model", "bounds", "output", *OPTIONS})
    if unknown:
        known = ", ".join(("model", "bounds", "output", *OPTIONS))
        raise InputError(f"{where}: {unknown[0]} is no known column; the columns are {known}")
    options = {}
    for name, kind in OPTIONS.items():
        if name in row:
            try:
                options[name] = kind(row[name])
            except (TypeError, ValueError):
                raise InputError(f"{where}: {name} {row[name]!r} is no {kind.__name__}") from None
    model = str(base / str(row["model"]))
    source = text if inline else str(base / text)
    output = str(folder / row["output"]) if "output" in row else _output(model, source, folder)
    return Job(model, source, output, options)


def _output(model: str, bounds: str, folder: Path) -> str:
    inline = bounds.lstrip().startswith(("[", "{"))
    box = hashlib.sha256(bounds.encode()).hexdigest()[:8] if inline else Path(bounds).stem
    return str(folder / f"{Path(model).stem}--{box}.onnx")


def glob_jobs(models: str, bounds: str, folder: Path, options: Mapping[str, Any]) -> list[Job]:
    """Every model of one pattern on every box of another (or on one inline box).

    Raises:
        InputError: a pattern names no file.
    """
    inline = bounds.lstrip().startswith(("[", "{"))
    # A pattern of the user's may be absolute, which Path.glob does not take.
    found = {"--models": sorted(glob.glob(models)), "--bounds": [bounds] if inline else sorted(glob.glob(bounds))}  # noqa: PTH207
    for name, paths in found.items():
        if not paths:
            raise InputError(f"{name} {models if name == '--models' else bounds}: matches no file")
    return _distinct(
        [Job(m, b, _output(m, b, folder), dict(options)) for m in found["--models"] for b in found["--bounds"]]
    )


def _distinct(jobs: list[Job]) -> list[Job]:
    outputs: dict[str, int] = {}
    for number, job in enumerate(jobs, start=1):
        target = os.path.normpath(job.output)
        if target in outputs:
            raise InputError(f"jobs {outputs[target]} and {number} both write {job.output}; give them an output each")
        if os.path.normpath(job.model) == target:
            raise InputError(f"job {number}: its output {job.output} is the model itself")
        outputs[target] = number
    return jobs


def digests(jobs: Sequence[Job]) -> dict[str, str]:
    """What all results depend on: the list of jobs with its options. Each job's files have digests in its own row."""
    listed = hashlib.sha256(json.dumps([asdict(job) for job in jobs], sort_keys=True).encode()).hexdigest()
    return {"list of jobs": listed}


def model_digest(job: Job) -> str | None:
    """SHA-256 of the model and its external data; None where they cannot be read (the job itself says why)."""
    try:
        return file_digest(Path(job.model))
    except (OSError, ValueError):
        return None


def bounds_digest(job: Job) -> str | None:
    """SHA-256 of the file of the box, or of its text where it is given inline; None where it cannot be read."""
    if job.bounds.lstrip().startswith(("[", "{")):
        return hashlib.sha256(job.bounds.encode()).hexdigest()
    try:
        return hashlib.sha256(Path(job.bounds).read_bytes()).hexdigest()
    except (OSError, ValueError):
        return None
