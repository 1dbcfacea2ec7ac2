"""Measure the bounding engine: proved phases, CPU time, and the same against other ways of bounding.

    REDY_DATA=DATA python benchmarks/engine.py [--quick] [--parts SUBDOMAINS,...] [--count N] [--milp N]

DATA holds acasxu/ and nets/. Every part prints a table in Markdown. Times are CPU times of this process (one BLAS
thread), because wall time on a shared machine says little; every comparison is a ratio within one run.

A unit is *possible* if no point shows it in two pieces: 200,000 samples, corners, and every point that the search met.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from redy import Box, Network, read_box, read_network
from redy.bounds.linear import linear_bounds
from redy.bounds.result import Bounds
from redy.condensed.phases import phases
from redy.milp import phase as milp
from redy.model import Affine, Array, Proved
from redy.questions.phases import PhaseSettings
from redy.questions.seen import Seen, sample_points, seen_at
from redy.redundancy.phase import find_phases

SPLITS = (8,) * 5
PER_BOX = 100_000_000
"""Work per sub-domain with which all 32,768 take about 2.5 hours on 2 cores (0.55 CPU s each)."""

Stuck = dict[str, NDArray[np.bool_]]


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small counts, half a minute")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--count", type=int, default=2000, help="sub-domains of the part `many`")
    parser.add_argument("--milp", type=int, default=6, help="sub-domains given to Gurobi")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds of a solver per sub-domain or network")
    options = parser.parse_args()
    if options.quick:
        options.count, options.milp, options.limit = 20, 1, 10.0
    data = Path(os.environ.get("REDY_DATA", "models/external"))
    if not (data / "acasxu").is_dir():
        sys.exit(f"{data}/acasxu: not found; set REDY_DATA or run scripts/fetch_acas.py")
    network, box = acas(data, "1_1")
    engine(network, next(subdomains(box, 1)), PhaseSettings(engine="branch"), ceiling=False)  # loads the kernels
    print(f"{time.strftime('%Y-%m-%d')}, python benchmarks/engine.py {' '.join(sys.argv[1:])}\n")
    for part in options.parts.split(","):
        PARTS[part](data, options)
        print(flush=True)


def acas(data: Path, name: str) -> tuple[Network, Box]:
    """An ACAS Xu network and its whole domain."""
    lower, upper = [-0.328422877, -0.5, -0.5, -0.5, -0.5], [0.679857769, 0.5, 0.5, 0.5, 0.5]
    network = read_network(data / "acasxu" / f"ACASXU_run2a_{name}.onnx")
    shape = network.input.shape
    return network, Box(np.reshape(lower, shape), np.reshape(upper, shape))


@dataclass
class Measured:
    """Counts of units, and CPU seconds."""

    proved: int
    possible: int
    units: int
    seconds: float
    boxes: int = 0


def engine(network: Network, box: Box, settings: PhaseSettings, *, ceiling: bool = True) -> Measured:
    """Linear bounds and branching, 4,000 samples included in the time; then the ceiling outside of it."""
    begin = time.process_time()
    points = sample_points(box, 4000, 64, seed=0)
    seen = seen_at(network, points)
    answer = find_phases(network, box, seen, points, settings)
    seconds = time.process_time() - begin
    stuck = stuck_units(network, answer.bounds)
    moving = moves(network, seen_at(network, sample_points(box, 200_000 if ceiling else 10_000, 1024, seed=1)))
    if any((stuck[name] & moving[name]).any() for name in stuck):
        raise AssertionError("a proof contradicts a point")
    undecided = {(unit.node, unit.index) for unit in answer.undecided}
    still = sum(not moving[name][index] for name, index in undecided)
    proved = sum(int(flags.sum()) for flags in stuck.values())
    boxes = int(answer.stats.get("branch", {}).get("boxes", 0))
    return Measured(proved, proved + still, sum(flags.size for flags in stuck.values()), seconds, boxes)


def stuck_units(network: Network, bounds: Bounds) -> Stuck:
    """Activation -> which elements the bounds show in one piece."""
    return {name: pieces.ravel() >= 0 for name, pieces in bounds.pieces(network).items()}


def moves(network: Network, seen: Seen) -> Stuck:
    """Activation -> which elements points show in two pieces."""
    found = {}
    for node in network.activations:
        breaks = node.function.broadcast_to(node.shape).breakpoints
        low, high = seen[node.name]
        found[node.name] = ((breaks > low) & (breaks < high)).any(axis=0).ravel()
    return found


def subdomains(box: Box, count: int, seed: int = 0, draw: str = "choice") -> Iterator[Box]:
    """Random cells of the grid with 8 parts per input: of their numbers without repetition, or of their coordinates.

    The two draws differ in difficulty: seed 0 of `choice` meets far more of the hard cells than the average.
    """
    grid, rng = box.grid(SPLITS), np.random.default_rng(seed)
    if draw == "choice":
        indices = rng.choice(len(grid), count, replace=False)
    else:
        indices = np.ravel_multi_index(tuple(rng.integers(0, 8, size=(count, 5)).T), SPLITS)
    for index in indices:
        yield grid[int(index)]


def quantiles(values: list[float]) -> str:
    """Median, mean and largest value."""
    return f"{np.median(values):.2f} | {np.mean(values):.2f} | {max(values):.2f}"


def part_subdomains(data: Path, options: argparse.Namespace) -> None:
    """(a) What is proved of what is possible."""
    print(
        "| network | draw | sub-domains | proved / possible | undecided | redundant | CPU s median | mean | largest |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for (name, count), draw in itertools.product((("1_1", 50), ("3_3", 20), ("5_9", 20)), ("choice", "integers")):
        network, box = acas(data, name)
        parts = list(subdomains(box, 3 if options.quick else count, draw=draw))
        found = [engine(network, part, PhaseSettings(engine="branch")) for part in parts]
        proved, possible, units = (sum(getattr(m, key) for m in found) for key in ("proved", "possible", "units"))
        print(
            f"| {name} | {draw} | {len(parts)} | {proved / possible:.2%} | {(possible - proved) / units:.2%} "
            f"| {proved / units:.2%} | {quantiles([m.seconds for m in found])} |",
            flush=True,
        )


def part_milp(data: Path, options: argparse.Namespace) -> None:
    """(b) Against Gurobi: linear bounds first, then a program per undecided neuron."""
    network, box = acas(data, "1_1")
    print("| sub-domain | engine proved | CPU s | Gurobi proved | CPU s | ratio |\n|---|---|---|---|---|---|")
    ratios = []
    for number, part in enumerate(itertools.islice(subdomains(box, 50), options.milp)):
        ours = engine(network, part, PhaseSettings(engine="branch"), ceiling=False)
        begin = time.process_time()
        points = sample_points(part, 4000, 64, seed=0)
        settings = milp.Settings(solver="gurobi", time_limit=options.limit, trust=True)
        answer = milp.phases(network, part, None, points, settings)
        seconds = time.process_time() - begin
        theirs = sum(isinstance(e.verdict, Proved) for e in answer.elements.values())
        ratios.append(seconds / ours.seconds)
        print(
            f"| {number} | {ours.proved} | {ours.seconds:.2f} | {theirs} | {seconds:.1f} | {ratios[-1]:.0f} |",
            flush=True,
        )
    print(f"\nMedian ratio {np.median(ratios):.0f}; the solver stops after {options.limit:.0f} s per sub-domain.")


def crown(layers: list[tuple[Array, Array]], lower: Array, upper: Array) -> list[tuple[Array, Array]]:
    """Straightforward batched CROWN (no folding, no rounding): pre-activation bounds on sub-boxes (N, n)."""
    found: list[tuple[Array, Array]] = []
    lines: list[tuple[Array, Array, Array]] = []
    for depth, (weight, bias) in enumerate(layers):
        ends = []
        for sign in (1.0, -1.0):
            rows = np.repeat(sign * weight[None], len(lower), axis=0)
            total = np.repeat(sign * bias[None], len(lower), axis=0)
            for below in range(depth - 1, -1, -1):
                low, high, intercept = lines[below]
                total += (np.maximum(rows, 0) @ intercept[:, :, None])[:, :, 0]
                rows = np.maximum(rows, 0) * high[:, None] + np.minimum(rows, 0) * low[:, None]
                total += rows @ layers[below][1]
                rows = rows @ layers[below][0]
            total += (np.maximum(rows, 0) @ upper[:, :, None] + np.minimum(rows, 0) @ lower[:, :, None])[:, :, 0]
            ends.append(sign * total)
        high, low = ends
        found.append((low, high))
        wide = np.where(high > low, high - low, 1.0)
        slope = np.where(low >= 0, 1.0, np.where(high <= 0, 0.0, high / wide))
        adaptive = np.where((low >= 0) | ((high > 0) & (high > -low)), 1.0, 0.0)
        lines.append((adaptive, slope, np.where((low < 0) & (high > 0), -slope * low, 0.0)))
    return found


def part_rate(data: Path, options: argparse.Namespace) -> None:
    """(c) Sub-boxes bounded per CPU second."""
    network, box = acas(data, "1_1")
    layers = [
        (node.terms[0].operator.matrix(), node.bias.ravel()) for node in network.nodes if isinstance(node, Affine)
    ]
    count = 256
    part = next(subdomains(box, 1))
    points = part.sample(2 * count, np.random.default_rng(0)).reshape(2, count, -1)
    lower, upper = points.min(axis=0), points.max(axis=0)
    begin = time.process_time()
    crown(layers, lower, upper)
    plain = count / (time.process_time() - begin)
    boxes, seconds = 0, 0.0
    for part in subdomains(box, 3 if options.quick else 20):
        bounds, seen = linear_bounds(network, part), seen_at(network, sample_points(part, 4000, 64, seed=0))
        begin = time.process_time()
        boxes += phases(network, part, known=bounds.intervals, seen=seen).boxes
        seconds += time.process_time() - begin
    print("| way | sub-boxes per CPU s | ratio |\n|---|---|---|")
    print(f"| batched numpy CROWN, unfolded network | {plain:.0f} | 1 |")
    print(f"| engine, everything included | {boxes / seconds:.0f} | {boxes / seconds / plain:.1f} |")


def part_many(data: Path, options: argparse.Namespace) -> None:
    """(d) Many sub-domains at the budget of a run over all of them."""
    network, box = acas(data, "1_1")
    settings = PhaseSettings(engine="branch", budget=PER_BOX)
    found = [engine(network, part, settings, ceiling=False) for part in subdomains(box, options.count, seed=1)]
    share = [m.proved / m.units for m in found]
    print("| sub-domains | redundant: mean | 5% | median | 95% | CPU s median | mean | largest |")
    print("|---|---|---|---|---|---|---|---|")
    low, middle, high = np.quantile(share, [0.05, 0.5, 0.95])
    print(
        f"| {options.count} | {np.mean(share):.2%} | {low:.2%} | {middle:.2%} | {high:.2%} "
        f"| {quantiles([m.seconds for m in found])} |"
    )


def part_large(data: Path, options: argparse.Namespace) -> None:
    """(e) Whole-domain ACAS, and balls around digits for networks with 784 inputs."""
    cases: list[tuple[str, Network, Box]] = [("ACAS 1_1, whole domain", *acas(data, "1_1"))]
    digit = np.kron(load_digits().images[0] / 16, np.ones((3, 3)))
    image = np.pad(digit, 2).reshape(-1)
    for name in ("mnist_256x2",) if options.quick else ("mnist_256x2", "mnist_256x4"):
        network = read_network(data / "nets" / f"{name}.onnx")
        for radius in (0.02, 0.05):
            center = image.reshape(network.input.shape)
            box = Box(np.clip(center - radius, 0, 1), np.clip(center + radius, 0, 1))
            cases.append((f"{name}, {radius}", network, box))
    print("| network, box | possible | linear | auto | undecided | CPU s | MILP, trusted, same time | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for label, network, box in cases:
        print(f"| {label} | {large(network, box, options.limit)} |", flush=True)


def large(network: Network, box: Box, limit: float) -> str:
    """One row: shares of all units, in per cent. Possible: in one piece at all points, also those met by `auto`."""
    points = sample_points(box, 4000, 64, seed=0)
    seen = seen_at(network, points)
    shares, seconds, undecided = [], [], 0.0
    for way in ("linear", "milp", "auto"):
        settings = PhaseSettings(way, trust=way == "milp", deadline=time.monotonic() + limit)
        begin = time.process_time()
        answer = find_phases(network, box, seen, points, settings)
        seconds.append(time.process_time() - begin)
        flags = np.concatenate(list(stuck_units(network, answer.bounds).values()))
        shares.append(flags.mean())
        undecided = len(answer.undecided) / flags.size
    linear, program, auto = shares
    return (
        f"{auto + undecided:.2%} | {linear:.2%} | {auto:.2%} | {undecided:.2%} | {seconds[2]:.1f} "
        f"| {program:.2%} | {seconds[1]:.1f}"
    )


def part_start(data: Path, options: argparse.Namespace) -> None:
    """(f) Wall time of `redy reduce` on one sub-domain, second run."""
    del options
    model = data / "acasxu" / "ACASXU_run2a_1_1.onnx"
    box = next(subdomains(acas(data, "1_1")[1], 1))
    bounds = f'{{"lower": {box.lower.ravel().tolist()}, "upper": {box.upper.ravel().tolist()}}}'
    read_box(bounds, box.shape)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "redy", "reduce", str(model), "--bounds", bounds, "--quiet"]
        walls = []
        for number in range(3):
            begin = time.perf_counter()
            subprocess.run([*command, "-o", f"{folder}/{number}.onnx"], check=True)
            walls.append(time.perf_counter() - begin)
    print("| run | wall s |\n|---|---|")
    for number, wall in enumerate(walls, start=1):
        print(f"| {number} | {wall:.1f} |")


PARTS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "subdomains": part_subdomains,
    "milp": part_milp,
    "rate": part_rate,
    "many": part_many,
    "large": part_large,
    "start": part_start,
}

if __name__ == "__main__":
    main()
