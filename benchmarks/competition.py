"""What `redy reduce` makes of networks and properties of the verification competitions, a table of all families.

    python benchmarks/competition.py [--time-limit S] [--only NAME ...] [--write docs/benchmarks-competition.md]

Each network is reduced by the command line with the first box of its property; a network without a property has the box
[-1, 1]. Columns: elements of activations; those proved to stay in one piece; the ceiling, which are those that samples
never show in two; parameters and multiply-adds before and after; milliseconds of one evaluation in onnxruntime before
and after; seconds of the run. A run fails if the command ends in a traceback or the network is larger than the
original; a network that is refused is listed with the line that says why. The data comes from $REDY_DATA/vnncomp.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from redy.formats.onnx_read import read_network
from redy.model import Box
from redy.questions.seen import sample_points, seen_at

PAIRS = {
    "cartpole": "cartpole_case_safe_50.vnnlib",
    "certificate_and_controller_mandal": "[-1, 1]",
    "cgan_32_1": "cgan_32_1.vnnlib",
    "collins_small_20": "collins_20.vnnlib",
    "concat__concat_axis_0": "[-1, 1]",
    "cora_mnist_point": "cora_img0.vnnlib",
    "dist_shift": "dist_shift.vnnlib",
    "eran_sigmoid_6x200": "eran_4285.vnnlib",
    "gcas": "gcas_0.vnnlib",
    "lindex": "lindex_1.vnnlib",
    "linearize_10_10": "linearize_10_10.vnnlib",
    "lsnc_state": "lsnc_state_0.vnnlib",
    "lunarlander": "lunarlander_case_safe_0.vnnlib",
    "marabou_cifar10_small": "marabou_cifar10_small.vnnlib",
    "marabou_fc2": "[-1, 1]",
    "marabou_traffic64": "[-1, 1]",
    "ml4acopf_14": "ml4acopf_14.vnnlib",
    "mscn_128d": "cardinality_0_1_128.vnnlib",
    "multiInput_add": "[-1, 1]",
    "oneInput_twoBranches": "[-1, 1]",
    "pensieve_small_simple": "pensieve_simple_3.vnnlib",
    "safenlp_perturbations_0": "safenlp_154.vnnlib",
    "tiny_yolo": "tiny_yolo.vnnlib.gz",
    "tll_8_0_0": "tll_8_0.vnnlib",
    "vdp": "vdp_0.vnnlib",
    "vit_ibp_3_3_8": "vit_1264.vnnlib.gz",
}
"""Network -> its property, or a box."""
HEAD = (
    "| network | elements | proved | ceiling | parameters | multiply-adds | latency, ms | seconds |\n"
    "| --- | ---: | ---: | ---: | --- | --- | --- | ---: |"
)


@dataclass(frozen=True)
class Row:
    """One line of the table; `failed` says what must not happen, if it did."""

    line: str
    failed: str | None = None


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds a network (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=sorted(PAIRS), help="these networks")
    parser.add_argument("--write", type=Path, help="also write the table to this page")
    arguments = parser.parse_args()
    data = Path(os.environ.get("REDY_DATA", "models/external")) / "vnncomp"
    if not data.is_dir():
        sys.exit(f"error: {data} is not there; set REDY_DATA to the folder that holds vnncomp/")
    rows = []
    print(HEAD, flush=True)
    for name in arguments.only or PAIRS:
        rows.append(reduced(data, name, arguments.time_limit))
        print(rows[-1].line, flush=True)
    if arguments.write is not None:
        arguments.write.write_text(page(rows, arguments.time_limit), encoding="utf-8")
    failed = [row.failed for row in rows if row.failed is not None]
    sys.exit("\n".join(failed) if failed else 0)


def reduced(data: Path, name: str, limit: float) -> Row:
    """Reduce one network by the command line."""
    model, bounds = data / f"{name}.onnx", PAIRS[name]
    bounds = bounds if bounds.startswith("[") else str(data / bounds)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "small.onnx"
        command = [sys.executable, "-m", "redy", "reduce", str(model), "--bounds", bounds, "-o", str(target)]
        begin = time.perf_counter()
        run = subprocess.run(
            [*command, "--time-limit", str(limit), "--json", "--quiet"], capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - begin
        if run.returncode != 0:
            last = (run.stderr.strip().splitlines() or ["no message"])[-1].replace(str(data) + "/", "")
            wrong = run.returncode != 2 or "Traceback" in run.stderr
            return Row(f"| {name} | {last} |||||| {seconds:.1f} |", f"{name}: {last}" if wrong else None)
        document = json.loads(run.stdout)
        before, after = document["original"], document["reduced"]
        elements, proved, ceiling = stuck(model, document)
        latency = " -> ".join(f"{milliseconds(path):.3f}" for path in (model, target))
    sizes = (f"{before[key]:,} -> {after[key]:,}" for key in ("parameters", "multiply_adds"))
    line = f"| {name} | {elements:,} | {proved:,} | {ceiling:,} | {' | '.join(sizes)} | {latency} | {seconds:.1f} |"
    larger = any(after[key] > before[key] for key in ("parameters", "multiply_adds"))
    return Row(line, f"{name}: the written network is larger" if larger else None)


def stuck(model: Path, document: dict) -> tuple[int, int, int]:
    """How many elements the activations have, how many were proved to stay in one piece, how many samples allow."""
    network = read_network(model)
    ends = (np.array(document["box"][end], dtype=np.float64).reshape(network.input.shape) for end in ("lower", "upper"))
    box = Box(*ends)
    count = max(32, min(20_000, 2_000_000_000 // max(1, network.macs)))
    ceiling = network.units
    for node_name, (low, high) in seen_at(network, sample_points(box, count, min(count, 1024), 1)).items():
        breaks = network.by_name[node_name].function.broadcast_to(low.shape).breakpoints
        ceiling -= int(((breaks > low) & (breaks < high)).any(axis=0).sum())
    steps = document["engine"].get("phase", {})
    return network.units, sum(step.get("elements", 0) for step in steps.values()), ceiling


def milliseconds(path: Path) -> float:
    """The median time of one evaluation in onnxruntime, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {}
    for given in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in given.shape]
        feeds[given.name] = np.zeros(shape, dtype={"tensor(double)": np.float64}.get(given.type, np.float32))
    times = []
    for _ in range(60):
        begin = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - begin)
    return float(np.median(times[10:])) * 1e3


def page(rows: list[Row], limit: float) -> str:
    """The page with the table."""
    table = "\n".join([HEAD, *(row.line for row in rows)])
    return f"""# Benchmarks: networks of the verification competitions

Measured on 2026-11-25 by

    python benchmarks/competition.py --time-limit {limit:g} --write docs/benchmarks-competition.md

Networks and properties are those of VNN-COMP 2021 to 2024 and of Marabou's resources. Each is reduced on the first box
of its property, on [-1, 1] where it has none. *Elements* are those of piecewise-linear activations; *proved* stay in
one piece on the box; *ceiling* are those that samples never show in two pieces, so no method can prove more. Latency is
the median of one evaluation in onnxruntime on one thread; seconds are wall time of the whole
command on two cores with nothing else running.

{table}
"""


if __name__ == "__main__":
    main()
