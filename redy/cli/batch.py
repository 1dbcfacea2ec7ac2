"""`redy batch`: many models on many boxes, each reduction a durable row of a store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redy.cli.interrupts import explained
from redy.cli.paths import Named, guard, model_files, store_files
from redy.cli.progress import Display
from redy.cli.running import command_line
from redy.cli.workers import check_exports, export, say_discarded, worker_options
from redy.errors import InputError

if TYPE_CHECKING:
    from redy.cli.batch_work import BatchWork
    from redy.runs.executor import Executor
    from redy.runs.jobs import Job


@click.command("batch")
@click.argument("jobs_file", metavar="[JOBS]", required=False, type=click.Path(path_type=Path))
@click.option("--models", help="Pattern of models, such as 'nets/**/*.onnx', instead of JOBS.")
@click.option("--bounds", help="Pattern of box files, or one inline box, for --models.")
@click.option(
    "-o", "--output", required=True, help="Folder for the results, or with --models 'out/{model}/{box}.onnx'."
)
@click.option("--preserve", type=click.Choice(["outputs", "decision", "tolerance"]), help="For --models.")
@click.option("--tolerance", type=float, help="For --models.")
@click.option("--time-limit", type=float, help="Seconds for each job of --models.")
@worker_options
@click.option("--store", type=click.Path(path_type=Path), help="Results store. Default: FOLDER/results.sqlite.")
@click.option("--report", type=click.Path(path_type=Path), help="Write what came of every job as JSON, too.")
@click.option("--html", "page_path", type=click.Path(path_type=Path), help="Write the jobs as one HTML page.")
@click.option("--quiet", is_flag=True, help="No line per job.")
@click.pass_context
def batch_command(  # noqa: PLR0913, PLR0917 - one parameter per option
    ctx: click.Context,
    jobs_file: Path | None,
    models: str | None,
    bounds: str | None,
    output: str,
    preserve: str | None,
    tolerance: float | None,
    time_limit: float | None,
    jobs: int,
    scheduler: str | None,
    store: Path | None,
    resume: bool,
    csv_path: Path | None,
    parquet: Path | None,
    report: Path | None,
    page_path: Path | None,
    quiet: bool,
) -> None:
    """Reduce many models on many boxes: the rows of JOBS (.csv, .tsv or .jsonl), or --models times --bounds.

    With --resume jobs that are new or failed are made, and those whose output is gone or was changed.

    Exit code 0: every job done; 1: some failed (the store says why); 2: bad input or usage.
    """
    from redy.cli.batch_summary import line, named, summary, tally, write_report
    from redy.cli.batch_work import COLUMNS, BatchWork
    from redy.formats.files import write_atomically
    from redy.runs.attempts import to_make_again
    from redy.runs.cluster import executor_of
    from redy.runs.entering import Entering
    from redy.runs.jobs import numbered
    from redy.runs.store import Store

    begin = time.monotonic()
    if (jobs_file is None) == (models is None) or (models is None) != (bounds is None):
        raise InputError("give either a file of jobs, or --models and --bounds")
    check_exports(parquet)
    options = {"preserve": preserve, "tolerance": tolerance, "time_limit": time_limit}
    given = {name: value for name, value in options.items() if value is not None}
    listed, folder = _listed(jobs_file, models, bounds, output, given)
    path = folder / "results.sqlite" if store is None else store
    _make_folders([folder, *(Path(job.output).parent for job in listed)])
    tables = [
        ("the CSV file", csv_path),
        ("the Parquet file", parquet),
        ("the report", report),
        ("the page", page_path),
    ]
    _guard(jobs_file, listed, [*store_files(path), *tables])
    with Store(path, COLUMNS, {"kind": "batch"}, resume=resume) as results:
        say_discarded(results)
        there = {row[0]: row[1:5] for row in results.rows()}
        numbers = numbered(path, listed, there)
        by_number = dict(zip(numbers, listed, strict=True))
        again = to_make_again(path, by_number, map(named, results.rows()))
        for number, why in () if quiet else again.items():
            click.echo(f"job {number} is made again: {why.reason}", err=True)
        to_make = set(numbers) - there.keys() | again.keys()
        work = BatchWork(by_number, {number: why.attempts for number, why in again.items()})
        run = _Run(listed, numbers, to_make, work)
        display = Display("jobs", len(listed), len(listed) - len(to_make), quiet=quiet)

        def said(row: tuple[Any, ...]) -> None:
            display.say(line(named(row)))
            display.advance()

        kept = f"of {len(listed)} jobs are kept in {path}; the same command with --resume makes the others"
        with explained(lambda: f"{display.done} {kept}"), display, Entering(results, said) as entering:
            for row in run.rows(executor_of(jobs, scheduler)):
                entering.enter(row)
        export(results, csv_path, parquet)
        if page_path is not None:
            from redy.formats.files import write_text
            from redy.report.listing import batch_page

            write_text(page_path, batch_page(map(named, results.rows()), path, command_line(ctx)))
        counts = tally(map(named, results.rows()))
        if report is not None:
            reasons, wall = {number: why.reason for number, why in again.items()}, time.monotonic() - begin
            write_atomically(
                report,
                lambda temporary: write_report(temporary, map(named, results.rows()), counts, to_make, reasons, wall),
            )
    click.echo(summary(counts, len(again), path))
    if counts.done < counts.total:
        click.get_current_context().exit(1)


def _listed(
    jobs_file: Path | None, models: str | None, bounds: str | None, output: str, given: dict[str, Any]
) -> tuple[list[Job], Path]:
    """The jobs, and the folder of the results."""
    from redy.runs.job_files import read_jobs
    from redy.runs.job_patterns import output_folder, pattern_jobs

    if jobs_file is None:
        return pattern_jobs(models or "", bounds or "", output, given), output_folder(output)
    if given:
        raise InputError(f"--{next(iter(given)).replace('_', '-')}: belongs to --models; a file of jobs has a column")
    if "{" in output:
        raise InputError(f"-o {output}: {{model}} and {{box}} belong to --models; a file of jobs has a column output")
    return read_jobs(jobs_file, Path(output)), Path(output)


def _make_folders(folders: list[Path]) -> None:
    for folder in dict.fromkeys(folders):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made a folder ({error.strerror}); choose another with -o") from error


def _guard(jobs_file: Path | None, listed: list[Job], others: list[Named]) -> None:
    """No output is a source, but where a job reads what an earlier job writes (`redy.runs.jobs.checked`)."""
    import os

    written = {os.path.realpath(job.output) for job in listed}
    sources: list[Named] = [("the file of jobs", jobs_file)]
    for model in dict.fromkeys(job.model for job in listed):
        if os.path.realpath(model) not in written:
            sources += model_files("the model of a job", Path(model))
    sources += [("the source of a job's bounds", box) for box in dict.fromkeys(job.bounds for job in listed)]
    outputs: list[Named] = [(f"the network of job {number}", job.output) for number, job in enumerate(listed, start=1)]
    guard(sources, [*outputs, *others])


@dataclass(frozen=True, slots=True)
class _Run:
    """Jobs to make: the list, the number of each, which of them, and the work."""

    listed: Sequence[Job]
    numbers: Sequence[int]
    to_make: set[int]
    work: BatchWork

    def rows(self, executor: Executor) -> Iterator[tuple[Any, ...]]:
        """A row for each, after those of the jobs it runs after; where one of these failed, so does the job."""
        from redy.runs.executor import chunked
        from redy.runs.jobs import waves

        failed = set[int]()
        for wave in waves(self.listed):
            open_jobs = []
            for place in wave:
                number, before = self.numbers[place], [self.numbers[k] for k in self.listed[place].after]
                missing = next((k for k in before if k in failed), None)
                if missing is not None:
                    failed.add(number)
                    yield self.work.failed(number, f"job {missing}, after which it runs, failed")
                elif number in self.to_make:
                    open_jobs.append(number)
            for number, row in executor.run(self.work, chunked(sorted(open_jobs), 1)):
                if row[5] == "failed":
                    failed.add(number)
                yield row
