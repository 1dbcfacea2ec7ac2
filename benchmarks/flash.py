"""Bytes against speed: `redy slice --flash` of an ACAS Xu network, compiled by gcc -O2, at random points of its domain.

    python benchmarks/flash.py --bytes 128k 256k 1M --work 20000000

The original is written by the same code as one slice. Outputs are compared bit for bit with the numpy evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from slicing import DRIVER, LOWER, UPPER

import redy
from redy.cli.slice import _size
from redy.slicing.export_c import c_source, program_source
from redy.slicing.flash import flash_size

BOUNDS = json.dumps({"lower": LOWER, "upper": UPPER})
ROUNDS = 7
FLAGS = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror"]


def compiled(source: str, folder: Path, name: str, inputs: int, outputs: int) -> int:
    """Compile a source with the driver; the bytes of code and constants that `size` counts in its object."""
    (folder / "driver.c").write_text(DRIVER.format(inputs=inputs, outputs=outputs), encoding="ascii")
    (folder / f"{name}.c").write_text(source, encoding="ascii")
    subprocess.run(["gcc", *FLAGS, "-c", f"{name}.c"], cwd=folder, check=True)
    subprocess.run(["gcc", *FLAGS, "driver.c", f"{name}.o", "-o", name], cwd=folder, check=True)
    counted = subprocess.run(["size", f"{name}.o"], cwd=folder, check=True, capture_output=True, text=True)
    text, data, *_ = counted.stdout.splitlines()[1].split()
    return int(text) + int(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=Path(os.environ.get("REDY_DATA", "."), "acasxu", "ACASXU_run2a_1_1.onnx"))
    parser.add_argument("--bounds", default=BOUNDS)
    parser.add_argument("--bytes", nargs="+", default=["128k", "256k", "1M"])
    parser.add_argument("--work", type=int, default=200_000_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--points", type=int, default=100_000)
    arguments = parser.parse_args()
    box = redy.read_box(arguments.bounds, redy.read_network(arguments.model).input)
    x = box.sample(arguments.points, np.random.default_rng(6)).astype(np.float32).reshape(arguments.points, -1)
    x = np.clip(x, box.lower.ravel().astype(np.float32), box.upper.ravel().astype(np.float32))
    print("| bytes | form | slices | bytes counted | gcc's own | time a point | speed | bits | search |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for text in arguments.bytes:
        begin = time.perf_counter()
        try:
            family = redy.slice_network(
                arguments.model, box, flash=_size(text), work=arguments.work, jobs=arguments.jobs
            )
        except redy.InputError as error:
            print(f"| {text} | {re.sub(r'^.*: ', '', str(error))} |", flush=True)
            continue
        spent = time.perf_counter() - begin
        source, outputs = c_source(family), int(family.whole.steps[-1].bias.size)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            compiled(program_source(family), folder, "original", x.shape[1], outputs)
            own = compiled(source, folder, "family", x.shape[1], outputs)
            times: dict[str, list[float]] = {"original": [], "family": []}
            for _ in range(ROUNDS):
                for program, mine in times.items():
                    done = subprocess.run([folder / program], input=x.tobytes(), capture_output=True, check=True)
                    mine.append(float(done.stderr))
            y = np.frombuffer(done.stdout, np.float32).reshape(-1, outputs)
        median = {program: float(np.median(mine)) for program, mine in times.items()}
        same = np.array_equal(y, family.evaluate(x).reshape(y.shape))
        taken = f"{flash_size(source):,} | {own:,}"
        print(
            f"| {text} | {family.form} | {len(family)} | {taken} | {1e6 * median['family']:.3f} us "
            f"| {median['original'] / median['family']:.2f} | {'equal' if same else 'DIFFERENT'} | {spent:.0f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
