"""Phase redundancy on the ACAS Xu networks: every box of the properties, and random sub-domains of network 1_1.

    python benchmarks/reduce.py [--quick] [--only properties|slices] [--time-limit S] [--slice-limit S]

Properties: every network with the boxes of properties 1 to 4, and the networks of properties 5 to 10 with theirs. Each
is reduced, written, and compared with the original in onnxruntime on samples and on the corners of the box. A run fails
if it raises, if an output differs by more than 1e-4 of the largest output, if the result has more parameters or
multiply-adds, or if a unit that the samples show in both phases was called redundant.

Slices: 20 cells of the grid that cuts every input of the domain into 8 parts; which 20, by either of numpy's usual
draws with seed 0. The ceiling is the share of units that the samples show in one phase only. The data comes from
$REDY_DATA, else from models/external/; the script exits with 1 if a run fails.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import redy
from redy.formats.onnx_run import Session
from redy.questions.seen import Seen, sample_points, seen_at
from redy.reduction.measure import measure

ROOT = Path(__file__).resolve().parent.parent
LOWER = (-0.328422877, -0.5, -0.5, -0.5, -0.5)
UPPER = (0.679857769, 0.5, 0.5, 0.5, 0.5)
"""The domain of every ACAS Xu network, normalised: rho, theta, psi, v_own, v_int."""
SHAPE = (1, 1, 5)
PARTS = 8
CELLS = PARTS ** len(LOWER)
CORNERS = 1024
DEVIATION = 1e-4
SAMPLES_SEED = 1
"""Not the seed of the reduction: the points must be others than those it saw."""


@dataclass(frozen=True)
class Outcome:
    """What came of one network on one box; shares are of the units, `deviation` of the largest output."""

    proved: float
    ceiling: float
    parameters: float
    multiply_adds: float
    deviation: float
    wrong: int
    seconds: float

    @property
    def passed(self) -> bool:
        """True if nothing that must hold was broken."""
        return self.deviation <= DEVIATION and self.parameters <= 1 and self.multiply_adds <= 1 and not self.wrong


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10,000 samples, three networks, five slices")
    parser.add_argument("--only", choices=["properties", "slices"], help="one of the two parts")
    parser.add_argument("--time-limit", type=float, default=2.0, help="seconds per property box (default: %(default)s)")
    parser.add_argument("--slice-limit", type=float, default=10.0, help="seconds per slice (default: %(default)s)")
    arguments = parser.parse_args()
    data = Path(os.environ.get("REDY_DATA") or ROOT / "models" / "external") / "acasxu"
    if not data.is_dir():
        sys.exit(f"error: {data} is not there; set REDY_DATA or run: python scripts/fetch_acas.py")
    samples = 10_000 if arguments.quick else 100_000
    passed = True
    if arguments.only != "slices":
        passed &= properties(data, samples, arguments.time_limit, quick=arguments.quick)
    if arguments.only != "properties":
        passed &= slices(data / "ACASXU_run2a_1_1.onnx", samples, arguments.slice_limit, quick=arguments.quick)
    sys.exit(0 if passed else 1)


def properties(data: Path, samples: int, limit: float, *, quick: bool) -> bool:
    """Every (network, property) of the benchmark's list."""
    print(f"properties: {samples:,} samples and the corners, at most {limit:g} s each")
    print(
        "property  boxes  failed  phase-redundant  ceiling  parameters  multiply-adds  deviation  seconds", flush=True
    )
    passed = True
    for number in range(1, 11):
        found: list[Outcome] = []
        for model, box in boxes_of(data, number, quick=quick):
            try:
                found.append(reduced(model, box, samples, limit))
            except redy.RedyError as error:
                passed = False
                print(f"{model.name} property {number}: {error}", flush=True)
                continue
            if not found[-1].passed:
                print(f"{model.name} property {number}: {found[-1]}", flush=True)
        passed &= all(one.passed for one in found)
        print(f"{number:>8}  {len(found):>5}  {sum(not one.passed for one in found):>6}  {row(found)}", flush=True)
    return passed


def boxes_of(data: Path, number: int, *, quick: bool) -> Iterator[tuple[Path, redy.Box]]:
    """The networks and boxes of a property, the first three under `quick`."""
    with (data / "acasxu_instances.csv").open(newline="", encoding="utf-8") as rows:
        names = [
            name.removesuffix("_batch_2000.onnx")
            for name, prop, *_ in csv.reader(rows)
            if prop == f"prop_{number}.vnnlib"
        ]
    if number <= 4:
        names = [f"ACASXU_run2a_{i}_{j}" for i in range(1, 6) for j in range(1, 10)]
    for name in names[: 3 if quick else None]:
        for box in redy.read_boxes(str(data / f"prop_{number}.vnnlib"), SHAPE):
            yield data / f"{name}.onnx", box


def slices(model: Path, samples: int, limit: float, *, quick: bool) -> bool:
    """20 cells of the grid by each draw."""
    print(f"slices of {model.name}: {PARTS} parts per input, {samples:,} samples and the corners, {limit:g} s each")
    print(f"{'draw':<37} slices  failed  phase-redundant  ceiling  parameters  multiply-adds  deviation  seconds")
    draws = {
        "default_rng(0).choice, no replacement": np.random.default_rng(0).choice(CELLS, 20, replace=False),
        "default_rng(0).integers": np.random.default_rng(0).integers(0, CELLS, 20),
    }
    passed = True
    for name, cells in draws.items():
        found = [reduced(model, cell(int(index)), samples, limit) for index in cells[: 5 if quick else None]]
        passed &= all(one.passed for one in found)
        failed = sum(not one.passed for one in found)
        print(f"{name:<37} {len(found):>6}  {failed:>6}  {row(found)}", flush=True)
    return passed


def cell(index: int) -> redy.Box:
    """The cell of that number in C order (last input fastest)."""
    place = np.array(np.unravel_index(index, (PARTS,) * len(LOWER)))
    lower, width = np.array(LOWER), (np.array(UPPER) - LOWER) / PARTS
    low, high = lower + place * width, lower + (place + 1) * width
    return redy.Box(low.reshape(SHAPE), high.reshape(SHAPE))


def reduced(model: Path, box: redy.Box, samples: int, limit: float) -> Outcome:
    """Reduce, write, compare at points that the reduction has not seen."""
    network = redy.read_network(model)
    begin = time.perf_counter()
    reduction = redy.reduce(network, box, criteria=("phase",), time_limit=limit)
    seconds = time.perf_counter() - begin
    points = sample_points(box, samples, CORNERS, SAMPLES_SEED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.onnx"
        redy.write_network(reduction.network, path)
        measured = measure(Session(model), Session(path), box, points, network.input.dtype)
    units = sum(int(np.prod(node.shape)) for node in network.activations)
    seen = seen_at(network, points)
    both = both_phases(seen)
    return Outcome(
        proved=len(reduction.findings) / units,
        ceiling=1 - len(both) / units,
        parameters=reduction.network.parameters / network.parameters,
        multiply_adds=reduction.network.macs / network.macs,
        deviation=measured.deviation / measured.scale,
        wrong=sum((finding.unit.node, finding.unit.index) in both for finding in reduction.findings),
        seconds=seconds,
    )


def both_phases(seen: Seen) -> set[tuple[str, int]]:
    """The units that the points certainly show on both sides of 0 (these networks have ReLUs only)."""
    return {
        (name, int(index))
        for name, (low, high) in seen.items()
        for index in np.flatnonzero((low.ravel() < 0) & (high.ravel() > 0))
    }


def row(found: list[Outcome]) -> str:
    """Averages; the largest deviation; the median of the seconds."""
    if not found:
        return "-"
    proved, ceiling, parameters, macs = (
        100 * float(np.mean([getattr(one, name) for one in found]))
        for name in ("proved", "ceiling", "parameters", "multiply_adds")
    )
    deviation, seconds = max(one.deviation for one in found), float(np.median([one.seconds for one in found]))
    return (
        f"{proved:>14.1f}%  {ceiling:>6.1f}%  {parameters:>9.1f}%  {macs:>12.1f}%  {deviation:>9.1e}  {seconds:>7.1f}"
    )


if __name__ == "__main__":
    main()
