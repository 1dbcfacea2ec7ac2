"""What each mode removes on random sub-domains of an ACAS Xu network: share, error bound, size, cost and latency.

python benchmarks/pipeline.py [--network 1_1,3_3] [--draw choice|integers] [--count 50] [--into build/pipeline.jsonl]

Every finished sub-domain and mode is one JSON line, appended at once; what the file holds already is not run again, so
that a run can be stopped and continued. --summary prints the tables of a file and runs nothing.

Needs $REDY_DATA or models/external (scripts/fetch_acas.py). docs/benchmarks-pipeline.md quotes what it prints.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from redy.formats.onnx_read import read_network
from redy.formats.onnx_write import to_model
from redy.model import Activate, Affine, Array, Box, Network
from redy.questions.query import outputs
from redy.questions.seen import sample_points
from redy.questions.simulate import ascend
from redy.reduction import Reduction, reduce

ROOT = Path(__file__).resolve().parent.parent
LOWER = (-0.328422877, -0.5, -0.5, -0.5, -0.5)
UPPER = (0.679857769, 0.5, 0.5, 0.5, 0.5)
SPLITS = (8,) * 5
MODES: dict[str, dict[str, Any]] = {
    "outputs": {},
    "decision": {"preserve": "decision", "winner": "min"},
    "tolerance 1e-2": {"preserve": "tolerance", "tolerance": 1e-2},
    "tolerance 1e-3": {"preserve": "tolerance", "tolerance": 1e-3},
}
KINDS = ("phase", "forward", "result", "relaxed")
CALLS = 300
"""Calls timed for each of two models, in turns."""

Row = dict[str, Any]


def main() -> None:
    """Run what is not in the file yet, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="1_1", help="names, separated by commas")
    parser.add_argument("--draw", choices=("choice", "integers"), default="choice", help="how seed 0 draws sub-domains")
    parser.add_argument("--count", type=int, default=50, help="sub-domains per network")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "pipeline.jsonl")
    parser.add_argument("--until", help="begin nothing new after this time, HH:MM")
    parser.add_argument("--summary", action="store_true", help="only print the tables of --into")
    options = parser.parse_args()
    if not options.summary:
        run(options)
    rows = [json.loads(line) for line in options.into.read_text().splitlines()]
    print(f"{time.strftime('%Y-%m-%d')}, python benchmarks/pipeline.py {' '.join(sys.argv[1:])}")
    for name in dict.fromkeys(row["network"] for row in rows):
        for draw in dict.fromkeys(row["draw"] for row in rows):
            summarise(name, draw, [row for row in rows if row["network"] == name and row["draw"] == draw])


def run(options: argparse.Namespace) -> None:
    """Append one line per sub-domain and mode that the file does not hold."""
    data = Path(os.environ.get("REDY_DATA") or ROOT / "models" / "external") / "acasxu"
    options.into.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if options.into.exists():
        done = {(r["network"], r["draw"], r["index"], r["mode"]) for r in map(json.loads, options.into.open())}
    for name in options.network.split(","):
        network = read_network(data / f"ACASXU_run2a_{name}.onnx")
        for index in drawn(options.draw, options.count):
            for mode in options.modes.split(","):
                if (name, options.draw, index, mode) in done:
                    continue
                if options.until and time.strftime("%H:%M") >= options.until:
                    return
                row = {"network": name, "draw": options.draw, "index": index, "mode": mode}
                row |= measure(network, index, mode)
                with options.into.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def drawn(how: str, count: int) -> list[int]:
    """Numbers of grid cells: of all cells without replacement, or one random place per input."""
    rng = np.random.default_rng(0)
    if how == "choice":
        return [int(index) for index in rng.choice(8**5, max(count, 50), replace=False)[:count]]
    places = rng.integers(0, 8, size=(max(count, 50), 5))[:count]
    return [int(index) for index in np.ravel_multi_index(tuple(places.T), SPLITS)]


def measure(network: Network, index: int, mode: str) -> Row:
    """One mode on one sub-domain."""
    domain = Box(np.reshape(LOWER, network.input.shape), np.reshape(UPPER, network.input.shape))
    box = domain.grid(SPLITS)[index]
    options = dict(MODES[mode])
    if "tolerance" in options:
        options["relative_to"] = domain
    begin = time.process_time()
    reduction = reduce(network, box, **options)
    seconds = time.process_time() - begin
    points = sample_points(box, 20_000, 32, 1)
    small, kinds = reduction.network, [finding.kind for finding in reduction.findings]
    return {
        "constant": len(set(outputs(network, points).argmin(axis=1).tolist())) == 1,
        "redundant": len({finding.unit for finding in reduction.findings}) / network.units,
        "removed": 1 - small.units / network.units,
        **{kind: kinds.count(kind) / network.units for kind in KINDS},
        "undecided": len(reduction.undecided) / network.units,
        "parameters": small.parameters / network.parameters,
        "macs": small.macs / network.macs,
        "seconds": seconds,
        **error(network, reduction, box, points),
        "latency": latency(network, small, points),
    }


def error(network: Network, reduction: Reduction, box: Box, points: Array) -> Row:
    """The bound and the largest errors met: by samples and local search, and in the search too."""
    small, guarantee = reduction.network, reduction.guarantee
    apart = np.abs(outputs(network, points) - outputs(small, points))
    climbed = ascend(network, small, box, points[apart.argmax(axis=0)])
    sampled = max(apart.max(), np.abs(outputs(network, climbed) - outputs(small, climbed)).max())
    met = max(float(sampled), *(float(np.max(v)) for v in guarantee.found.values()), 0.0)
    bound = None if guarantee.error is None else max(float(np.max(v)) for v in guarantee.error.values())
    if bound is not None and met > bound * (1 + 1e-6):
        raise AssertionError(f"the error met, {met}, exceeds the bound {bound}")
    return {"bound": bound, "sampled": float(sampled), "met": met}


def latency(original: Network, small: Network, points: Array) -> Row:
    """Time of one call on one point, small against original, median over calls in turns: onnxruntime, plain numpy."""
    ratios = {}
    x = points[:CALLS, None].astype(np.float32)
    for name, prepare in (("onnxruntime", in_onnxruntime), ("numpy", in_numpy)):
        calls = [prepare(network) for network in (original, small)]
        spent = np.zeros((2, len(x)))
        for k, point in enumerate(x):
            for which, call in enumerate(calls):
                begin = time.perf_counter()
                call(point)
                spent[which, k] = time.perf_counter() - begin
        ratios[name] = float(np.median(spent[1]) / np.median(spent[0]))
    return ratios


def in_onnxruntime(network: Network) -> Callable[[np.ndarray], object]:
    """The written model, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = to_model(network).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})


def in_numpy(network: Network) -> Callable[[np.ndarray], object]:
    """One matrix product per term and one maximum per ReLU, in float32."""
    steps = list(numpy_steps(network))

    def call(x: np.ndarray) -> object:
        values = {network.input.name: x.ravel()}
        for name, sources, step in steps:
            values[name] = step(*(values[source] for source in sources))
        return [values[port.name] for port in network.outputs]

    return call


def numpy_steps(network: Network) -> Iterator[tuple[str, tuple[str, ...], Callable[..., np.ndarray]]]:
    """(name, sources, function) per node."""
    for node in network.nodes:
        if isinstance(node, Affine):
            weights = [np.ascontiguousarray(term.operator.matrix(), dtype=np.float32) for term in node.terms]
            bias = node.bias.ravel().astype(np.float32)
            if len(weights) == 1:
                yield node.name, (node.terms[0].source,), lambda v, w=weights[0], b=bias: w @ v + b
            else:
                yield (
                    node.name,
                    tuple(term.source for term in node.terms),
                    lambda *vs, ws=weights, b=bias: sum((w @ v for w, v in zip(ws, vs, strict=True)), b),
                )
        elif isinstance(node, Activate) and node.function.is_relu:
            yield node.name, (node.source,), lambda v: np.maximum(v, 0)
        else:
            raise TypeError(f"{node.name}: the plain loop knows affine nodes and ReLUs")


def summarise(name: str, draw: str, rows: list[Row]) -> None:
    """Tables of one network and draw."""
    print(f"\n### Network {name}, draw `{draw}`\n")
    print("| mode | redundant | constant decision | mixed | by phase alone | constant | mixed | not in the file |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    modes = [mode for mode in MODES if any(row["mode"] == mode for row in rows)]
    for mode in modes:
        part = [row for row in rows if row["mode"] == mode]
        groups = [part, [r for r in part if r["constant"]], [r for r in part if not r["constant"]]]
        proved = " | ".join(f"{mean(group, 'redundant')} ({len(group)})" for group in groups)
        phase = " | ".join(mean(group, "phase") for group in groups)
        print(f"| {mode} | {proved} | {phase} | {mean(part, 'removed')} |")
    print("\n| mode | parameters, median | multiply-adds, median | CPU s median, mean, max | onnxruntime | numpy |")
    print("| --- | --- | --- | --- | --- | --- |")
    for mode in modes:
        part = [row for row in rows if row["mode"] == mode]
        sizes = " | ".join(f"{100 * np.median([row[key] for row in part]):.1f}%" for key in ("parameters", "macs"))
        spent = [row["seconds"] for row in part]
        times = f"{np.median(spent):.1f}, {np.mean(spent):.1f}, {max(spent):.1f}"
        speed = " | ".join(f"{np.median([r['latency'][way] for r in part]):.2f}" for way in ("onnxruntime", "numpy"))
        print(f"| {mode} | {sizes} | {times} | {speed} |")
    tightness([row for row in rows if row["relaxed"] and row["bound"]])


def tightness(rows: list[Row]) -> None:
    """Bound against the largest error met, over reductions in which a unit was replaced by a line near it."""
    same = sum(row["met"] == 0 for row in rows)
    rows = [row for row in rows if row["met"]]
    if not rows:
        return
    print(f"\nError bounds of the {len(rows)} reductions with relaxed units, against the largest error met")
    print(f"({same} more with units that move no output):\n")
    print("| bound | against | median | 90% | largest |\n| --- | --- | --- | --- | --- |")
    for met in ("met", "sampled"):
        ratios = [row["bound"] / max(row[met], 1e-300) for row in rows if row["bound"] is not None]
        against = "samples and local search" + (", and where the engine met it" if met == "met" else " alone")
        print(f"| bound | {against} | {' | '.join(f'{q:.4g}' for q in np.quantile(ratios, (0.5, 0.9, 1)))} |")


def mean(rows: list[Row], key: str) -> str:
    """The mean of a share, in percent."""
    return f"{100 * np.mean([row[key] for row in rows]):.1f}%" if rows else "-"


if __name__ == "__main__":
    main()
