"""Files of jobs for `redy batch`: CSV (separated by commas, semicolons or tabs) and JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redy.errors import InputError
from redy.formats.files import read_text
from redy.runs.job_fields import FIELDS, OPTIONS, Where, checked_fields
from redy.runs.jobs import Job, checked, default_output, inline

Row = tuple[dict[str, Any], Where]
"""The fields of a row that are given, and where each stands."""
SEPARATORS = ",;\t"


def read_jobs(path: Path, folder: Path) -> list[Job]:
    """The jobs of a .csv, .tsv or .jsonl file, in order; paths in it are relative to it, outputs go to `folder`.

    Raises:
        InputError: the file cannot be read, or a row is no job; the text names line, column and what must stand there.
    """
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".tsv", ".jsonl"}:
        raise InputError(f"{path}: the name must end in .csv, .tsv or .jsonl")
    text = read_text(path, "jobs", "give a .csv, .tsv or .jsonl file of jobs")
    rows = _json_rows(path, text) if suffix == ".jsonl" else _csv_rows(path, text)
    jobs = [_job(*row, path.parent, folder) for row in rows]
    if not jobs:
        raise InputError(f"{path}: holds no job")
    return checked(jobs)


def _job(row: dict[str, Any], where: Where, base: Path, folder: Path) -> Job:
    values = checked_fields(row, where)
    bounds = values["bounds"]
    source = bounds if inline(bounds) else str(base / bounds)
    model = str(base / values["model"])
    named = values.get("output")
    output = default_output(Path(model).stem, source, folder) if named is None else str(folder / named)
    options = {name: values[name] for name in OPTIONS if name in values}
    return Job(model, source, output, options, values.get("after", ()))


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        _check_header(path, header, reader.line_num)
        for cells in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise InputError(f"{path}: line {line}: has {len(cells)} fields, the header has {len(header)}")

            def where(name: str, line: int = line) -> str:
                column = f", column {header.index(name) + 1}" if name in header else ""
                return f"{path}: line {line}{column}"

            yield {name: cell for name, cell in zip(header, cells, strict=True) if cell.strip()}, where
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: is no CSV ({error})") from error


def _check_header(path: Path, header: list[str], line: int) -> None:
    kinds = [*FIELDS, *OPTIONS]
    for column, name in enumerate(header, start=1):
        if name not in kinds:
            raise InputError(f"{path}: line {line}, column {column}: {name!r} is none of {', '.join(kinds)}")
        if name in header[: column - 1]:
            raise InputError(f"{path}: line {line}, column {column}: {name} is there twice")
    for name in ("model", "bounds"):
        if name not in header:
            raise InputError(f"{path}: line {line}: has no {name}; the header must name model and bounds")


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue

        def where(name: str, number: int = number, line: str = line) -> str:
            at = line.find(f'"{name}"') if name else -1
            return f"{path}: line {number}" + (f", column {at + 1}" if at >= 0 else "")

        yield _flat(_parsed(path, number, line), where), where


def _parsed(path: Path, number: int, line: str) -> Any:  # noqa: ANN401 - what JSON gives
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = next((name for k, name in enumerate(names) if name in names[:k]), None)
        if twice is not None:
            column = line.rfind(f'"{twice}"') + 1
            raise InputError(f"{path}: line {number}, column {column}: {twice} is there twice")
        return dict(pairs)

    try:
        return json.loads(line, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {number}, column {error.colno}: is not JSON ({error.msg})") from error
    except RecursionError:
        raise InputError(f"{path}: line {number}: is nested too deeply") from None


def _flat(row: Any, where: Where) -> dict[str, Any]:  # noqa: ANN401 - what JSON gives
    """The fields of an object, with its options among them; null stands for a field that is not given."""
    if not isinstance(row, dict):
        raise InputError(f'{where("")}: must be an object such as {{"model": "a.onnx", "bounds": "a.json"}}')
    options = row.get("options", {})
    if not isinstance(options, dict):
        raise InputError(f"{where('options')}: options must be an object of options of `redy reduce`")
    for name in options:
        if name in FIELDS:
            raise InputError(f"{where(name)}: {name} is no option; write it beside options")
        if name in row:
            raise InputError(f"{where(name)}: {name} is there twice")
    flat = {**{name: value for name, value in row.items() if name != "options"}, **options}
    return {name: value for name, value in flat.items() if value is not None}
