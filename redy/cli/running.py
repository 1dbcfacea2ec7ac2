"""What `redy reduce` does for each box: reduce, write beside the target, compare in onnxruntime, rename."""

from __future__ import annotations

import multiprocessing
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redy.cli.progress import Display
from redy.errors import Unsupported

if TYPE_CHECKING:
    from redy.model import Box
    from redy.reduction.certificate import Certifier
    from redy.report import File


def command_line(ctx: click.Context) -> str | None:
    """The command of this run as a shell would read it; None where it was not called from a command line."""
    return None if ctx.obj is None else shlex.join(("redy", *ctx.obj))


@dataclass(frozen=True, slots=True)
class Task:
    """One model, one box, one file to write, options of `redy.reduction.reduce`, open shapes, and a certificate.

    `asked` says that the certificate was asked for, so that its search may take long.
    """

    model: Path
    box: Box
    target: Path
    options: dict[str, Any]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    certificate: Path | None = None
    asked: bool = False


def run_tasks(tasks: list[Task], deadline: float | None, jobs: int, *, quiet: bool) -> Iterator[dict[str, Any]]:
    """The report of every task in order; several at once in processes of their own if `jobs` says so.

    Args:
        tasks: what to do.
        deadline: `time.monotonic()` at which everything ends; what is left of it is shared among the tasks to come.
        jobs: tasks at once.
        quiet: no progress on stderr.
    """
    display = Display("boxes" if len(tasks) > 1 else "", len(tasks), quiet=quiet)
    if jobs == 1 or len(tasks) == 1:
        for number, task in enumerate(tasks):
            # The display is gone before the caller prints the report.
            with display:
                document = run_task(task, _share(deadline, len(tasks) - number), display.step)
                display.done += 1
            yield document
        return
    from redy.reduction.warmup import compile_for_workers

    compile_for_workers()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        share = _share(deadline, -(-len(tasks) // jobs))
        futures = [pool.submit(run_task, task, share) for task in tasks]
        try:
            for future in futures:
                with display:
                    document = future.result()
                    display.advance()
                yield document
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def run_task(task: Task, time_limit: float | None, say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Reduce, write, compare; the report. An existing target stays as it was unless everything went well.

    Raises:
        CheckFailed: the written network is not what was proved; nothing was written.
    """
    from redy.formats.onnx_read import read_network
    from redy.reduction import reduce, write_reduction
    from redy.reduction.certificate import Certifier
    from redy.report import report

    begin = time.monotonic()

    # A share that is used up still leaves a moment for bounds, so that the result is valid and not empty.
    limit = None if time_limit is None else max(time_limit, 0.01)
    try:
        reduction = reduce(
            read_network(task.model, task.shapes), task.box, progress=say, time_limit=limit, **task.options
        )
    except Unsupported as error:
        raise Unsupported(f"{task.model}: {error}") from error
    if say:
        say("writing and comparing in onnxruntime")
    certifier = None
    if task.certificate is not None:
        end = None if limit is None else begin + limit
        certifier = Certifier(reduction, task.model, asked=task.asked, end=end)
    if say and certifier is not None:
        say("certifying")
    written = write_reduction(reduction, task.target, original=task.model, check=certifier)
    files = _file(task.model), _file(task.target)
    document = report(written.reduction, original=files[0], reduced=files[1], measured=written.measured)
    document["certificate"] = None if certifier is None else _certificate(certifier, task, document)
    return document


def _certificate(certifier: Certifier, task: Task, document: dict[str, Any]) -> dict[str, str] | None:
    """Write the certificate; its entry in the report. Where there is none a note says why."""
    from redy.formats.files import file_digest, write_atomically

    data, target = certifier.data, task.certificate
    assert target is not None
    if data is None:
        document["notes"] = [*document["notes"], f"no certificate: {certifier.reason}"]
        return None
    write_atomically(target, lambda path: path.write_bytes(data))
    return {"file": str(target), "sha256": file_digest(target), "claim": certifier.claim}


def _file(path: Path) -> File:
    from redy.formats.files import external_data, file_digest
    from redy.report import File

    size = sum(part.stat().st_size for part in (path, *external_data(path)))
    return File(str(path), file_digest(path), size)


def _share(deadline: float | None, tasks_left: int) -> float | None:
    """Seconds for the next task."""
    return None if deadline is None else (deadline - time.monotonic()) / tasks_left
