"""The overhead of `redy batch` a job, and its memory: many jobs that take 1 ms and reduce nothing.

python benchmarks/batch.py --jobs 10000 --processes 1 2
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from redy.cli import batch_work
from redy.cli.main import run
from redy.runs.jobs import Job

SECONDS = 0.001
SIZES = {"units": 300, "parameters": 13000, "multiply_adds": 12700}


def pretend(job: Job) -> dict[str, object]:
    """In place of a reduction: 1 ms, a file, and a report of usual length."""
    begin = time.perf_counter()
    Path(job.output).write_bytes(b"x" * 1000)
    document = {"original": SIZES, "reduced": SIZES, "undecided": [], "layers": ["a line of a report"] * 100}
    while time.perf_counter() - begin < SECONDS:
        pass
    return document


class _Pretending(batch_work.BatchWork):
    """The work of a batch with `pretend` in place of the reduction, also in a worker process."""

    def __call__(self, number: int) -> tuple[object, ...]:
        batch_work.reduced = pretend
        return super().__call__(number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    batch_work.BatchWork = _Pretending
    for processes in arguments.processes:
        for count in (arguments.jobs // 10, arguments.jobs):
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "m.onnx").write_bytes(b"no model")
                rows = [f'm.onnx,"[-1,1]",{number}.onnx' for number in range(count)]
                Path(folder, "jobs.csv").write_text("\n".join(["model,bounds,output", *rows]))
                command = ["batch", f"{folder}/jobs.csv", "-o", f"{folder}/out", "--quiet", "--jobs", str(processes)]
                begin, cpu = time.perf_counter(), time.process_time()
                code = run(command)
                wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
                begin = time.perf_counter()
                again = run([*command, "--resume"])
                resumed = time.perf_counter() - begin
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            over = 1000 * (wall / count - SECONDS / processes)
            print(
                f"{count} jobs, {processes} processes: exit {code}, {wall:.1f} s, overhead {over:.2f} ms a job, "
                f"{cpu:.1f} CPU s of this process, peak {peak:.0f} MB; nothing to resume: exit {again}, {resumed:.1f} s"
            )


if __name__ == "__main__":
    main()
