"""`redy batch`: many models on many boxes, each reduction a durable row of a store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redy.cli.paths import Named, guard, model_files, store_files
from redy.cli.running import command_line
from redy.cli.workers import check_exports, export, say_discarded, worker_options
from redy.errors import InputError, RedyError

if TYPE_CHECKING:
    from redy.runs.jobs import Job

COLUMNS = {
    "job": "INTEGER",
    "model": "TEXT NOT NULL",
    "bounds": "TEXT NOT NULL",
    "output": "TEXT NOT NULL",
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
"""The columns of a job; `status` is done or failed, `report` the document of docs/report.md, `attempts` a JSON list of
the attempts before this one (redy.runs.attempts)."""


@dataclass(frozen=True, slots=True)
class BatchWork:
    """A picklable function of a job's number, whose result is the job's row in the store."""

    jobs: tuple[Job, ...]
    attempts: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """By number the attempts before, for jobs that are made again."""

    def __call__(self, number: int) -> tuple[Any, ...]:
        """Reduce, write and compare as `redy reduce` does; a failure becomes a row, not an exception."""
        from redy.runs.attempts import written_digest
        from redy.runs.jobs import bounds_digest, model_digest

        job, begin = self.jobs[number - 1], time.perf_counter()
        about = (number, job.model, job.bounds, job.output)
        read = (model_digest(job), bounds_digest(job))
        attempts = json.dumps(self.attempts.get(number, ()))
        try:
            document = _reduced(job)
        except (RedyError, OSError, MemoryError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
        except Exception as error:  # noqa: BLE001 - one job's fault of redy must not end the others
            text = f"{type(error).__name__}: {' '.join(str(error).split())} (a fault of redy)"
        else:
            before, after = document["original"], document["reduced"]
            sizes = [part[name] for name in ("units", "parameters", "multiply_adds") for part in (before, after)]
            results = (*sizes, len(document["undecided"]), time.perf_counter() - begin, json.dumps(document))
            return (*about, "done", "", *results, *read, written_digest(job.output), attempts)
        return (*about, "failed", text, *[None] * 7, time.perf_counter() - begin, None, *read, None, attempts)


def _reduced(job: Job) -> dict[str, Any]:
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


@click.command("batch")
@click.argument("jobs_file", metavar="[JOBS]", required=False, type=click.Path(path_type=Path))
@click.option("--models", help="Pattern of models, such as 'nets/*.onnx', instead of JOBS.")
@click.option("--bounds", help="Pattern of box files, or one inline box, for --models.")
@click.option(
    "-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="Folder for the results."
)
@click.option("--preserve", type=click.Choice(["outputs", "decision", "tolerance"]), help="For --models.")
@click.option("--tolerance", type=float, help="For --models.")
@click.option("--time-limit", type=float, help="Seconds for each job of --models.")
@worker_options
@click.option("--store", type=click.Path(path_type=Path), help="Results store. Default: FOLDER/results.sqlite.")
@click.option("--html", "page_path", type=click.Path(path_type=Path), help="Write the jobs as one HTML page.")
@click.option("--quiet", is_flag=True, help="No line per job.")
@click.pass_context
def batch_command(  # noqa: PLR0913, PLR0917 - one parameter per option
    ctx: click.Context,
    jobs_file: Path | None,
    models: str | None,
    bounds: str | None,
    folder: Path,
    preserve: str | None,
    tolerance: float | None,
    time_limit: float | None,
    jobs: int,
    scheduler: str | None,
    store: Path | None,
    resume: bool,
    csv_path: Path | None,
    parquet: Path | None,
    page_path: Path | None,
    quiet: bool,
) -> None:
    """Reduce many models on many boxes: the rows of JOBS (.csv or .jsonl), or --models times --bounds.

    With --resume jobs that are missing or failed are made, and those whose output is gone or was changed.

    Exit code 0: every job done; 1: some failed (the store says why); 2: bad input or usage.
    """
    from redy.runs.attempts import to_make_again
    from redy.runs.cluster import executor_of
    from redy.runs.executor import chunked
    from redy.runs.jobs import digests, glob_jobs, read_jobs
    from redy.runs.store import Store

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made a folder ({error.strerror}); choose another with -o") from error
    if (jobs_file is None) == (models is None) or (models is None) != (bounds is None):
        raise InputError("give either a file of jobs, or --models and --bounds")
    check_exports(parquet)
    options = {"preserve": preserve, "tolerance": tolerance, "time_limit": time_limit}
    given = {name: value for name, value in options.items() if value is not None}
    if jobs_file is not None:
        if given:
            raise InputError(
                f"--{next(iter(given)).replace('_', '-')}: belongs to --models; a file of jobs has a column"
            )
        listed = read_jobs(jobs_file, folder)
    else:
        listed = glob_jobs(models or "", bounds or "", folder, given)
    path = folder / "results.sqlite" if store is None else store
    sources: list[Named] = [("the file of jobs", jobs_file)]
    for model in dict.fromkeys(job.model for job in listed):
        sources += model_files("the model of a job", Path(model))
    sources += [("the source of a job's bounds", job.bounds) for job in listed]
    outputs: list[Named] = [(f"the network of job {number}", job.output) for number, job in enumerate(listed, start=1)]
    guard(
        sources,
        [
            *outputs,
            *store_files(path),
            ("the CSV file", csv_path),
            ("the Parquet file", parquet),
            ("the page", page_path),
        ],
    )
    with Store(path, COLUMNS, digests(listed), resume=resume) as results:
        say_discarded(results)
        again = to_make_again(path, listed, map(_named, results.rows()))
        for number, why in () if quiet else again.items():
            click.echo(f"job {number} is made again: {why.reason}", err=True)
        open_jobs = sorted(set(range(1, len(listed) + 1)) - results.keys() | again.keys())
        done = len(listed) - len(open_jobs)
        work = BatchWork(tuple(listed), {number: why.attempts for number, why in again.items()})
        for _, row in executor_of(jobs, scheduler).run(work, chunked(open_jobs, 1)):
            results.add([row], replace=True)
            done += 1
            if not quiet:
                click.echo(f"{done} of {len(listed)}: {_line(row)}", err=True)
        export(results, csv_path, parquet)
        if page_path is not None:
            from redy.formats.files import write_text
            from redy.report.listing import batch_page

            write_text(page_path, batch_page(map(_named, results.rows()), path, command_line(ctx)))
        _summarise(map(_named, results.rows()), path, len(again))


def _named(row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(COLUMNS, row, strict=True))


def _line(row: tuple[Any, ...]) -> str:
    values = _named(row)
    name = f"{values['model']} on {values['bounds']}"
    if values["status"] == "failed":
        return f"{name}: failed: {values['error']}"
    return (
        f"{name}: {values['parameters_before']} -> {values['parameters_after']} parameters, {values['seconds']:.1f} s"
    )


def _summarise(rows: Iterable[dict[str, Any]], store: Path, again: int) -> None:
    """One line of the run; rows are read one by one, since each holds a whole report."""
    shares, total = [], 0
    for values in rows:
        total += 1
        if values["status"] == "done":
            shares.append(values["parameters_after"] / max(1, values["parameters_before"]))
    text = f"{len(shares)} of {total} jobs done"
    if shares:
        text += f", {sum(shares) / len(shares):.1%} of the parameters left on average"
    text += f", {again} made again" if again else ""
    click.echo(f"{text}; results in {store}")
    if len(shares) < total:
        click.get_current_context().exit(1)
