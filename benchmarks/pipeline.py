"""What each mode removes on random sub-domains of an ACAS Xu network: share, error bound, size and cost.

python benchmarks/pipeline.py [--network 1_1] [--count 50] [--jobs 2] [--into build/pipeline.json]

Needs $REDY_DATA or models/external (scripts/fetch_acas.py). docs/benchmarks-pipeline.md quotes what it prints.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from redy.formats.onnx_read import read_network
from redy.model import Box
from redy.reduction import reduce
from redy.redundancy.query import outputs
from redy.redundancy.seen import sample_points
from redy.redundancy.simulate import ascend

ROOT = Path(__file__).resolve().parent.parent
LOWER = (-0.328422877, -0.5, -0.5, -0.5, -0.5)
UPPER = (0.679857769, 0.5, 0.5, 0.5, 0.5)
MODES: dict[str, dict[str, Any]] = {
    "phase": {"criteria": ("phase",)},
    "outputs": {},
    "decision": {"preserve": "decision", "winner": "min"},
    "tolerance 1e-2": {"preserve": "tolerance", "tolerance": 1e-2},
    "tolerance 1e-3": {"preserve": "tolerance", "tolerance": 1e-3},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="1_1")
    parser.add_argument("--count", type=int, default=50, help="of the sub-domains that seed 0 draws")
    parser.add_argument("--draw", type=int, default=50, help="sub-domains drawn, of which --count are run")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "pipeline.json")
    arguments = parser.parse_args()
    data = Path(os.environ.get("REDY_DATA") or ROOT / "models" / "external") / "acasxu"
    model = data / f"ACASXU_run2a_{arguments.network}.onnx"
    chosen = np.random.default_rng(0).choice(32768, arguments.draw, replace=False)[: arguments.count]
    work = partial(measure, model, arguments.modes.split(","))
    with ProcessPoolExecutor(arguments.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        rows = []
        for row in pool.map(work, [int(index) for index in chosen]):
            rows.append(row)
            print(json.dumps(row), flush=True)
    arguments.into.parent.mkdir(parents=True, exist_ok=True)
    arguments.into.write_text(json.dumps(rows, indent=1) + "\n")
    summarise(rows, arguments.modes.split(","))


def measure(model: Path, modes: list[str], index: int) -> dict[str, Any]:
    """All modes on one sub-domain."""
    network = read_network(model)
    domain = Box(np.reshape(LOWER, network.input.shape), np.reshape(UPPER, network.input.shape))
    box = domain.grid((8,) * 5)[index]
    points = sample_points(box, 20_000, 32, 1)
    constant = len(set(outputs(network, points).argmin(axis=1).tolist())) == 1
    row: dict[str, Any] = {"index": index, "constant": constant}
    for mode in modes:
        options = dict(MODES[mode])
        if "tolerance" in options:
            options["relative_to"] = domain
        begin = time.process_time()
        reduction = reduce(network, box, **options)
        seconds = time.process_time() - begin
        small = reduction.network
        guarantee = reduction.guarantee
        apart = np.abs(outputs(network, points) - outputs(small, points))
        starts = points[apart.argmax(axis=0)]
        climbed = np.abs(outputs(network, p := ascend(network, small, box, starts)) - outputs(small, p)).max(axis=0)
        met = np.maximum(apart.max(axis=0), climbed)
        bound, analytic = (
            None if each is None else np.concatenate([v.ravel() for v in each.values()])
            for each in (guarantee.error, guarantee.analytic)
        )
        relaxed = any(finding.kind == "relaxed" for finding in reduction.findings)
        row[mode] = {
            "removed": 1 - small.units / network.units,
            "parameters": small.parameters / network.parameters,
            "macs": small.macs / network.macs,
            "seconds": seconds,
            "relaxed": relaxed,
            "tightness": None if bound is None else float(bound.max() / max(met.max(), 1e-300)),
            "analytic": None if analytic is None else float(analytic.max() / max(met.max(), 1e-300)),
        }
    return row


def summarise(rows: list[dict[str, Any]], modes: list[str]) -> None:
    constant = [row["constant"] for row in rows]
    print(f"\n{len(rows)} sub-domains, decision constant on {sum(constant)}")
    print("| mode | removed | constant | mixed | parameters, median | multiply-adds, median | CPU s median, max |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for mode in modes:
        removed = np.array([row[mode]["removed"] for row in rows])
        seconds = [row[mode]["seconds"] for row in rows]
        same, mixed = (removed[[c is value for c in constant]] for value in (True, False))
        shares = " | ".join(f"{100 * part.mean():.1f}%" if part.size else "-" for part in (removed, same, mixed))
        sizes = " | ".join(f"{100 * np.median([row[mode][n] for row in rows]):.1f}%" for n in ("parameters", "macs"))
        print(f"| {mode} | {shares} | {sizes} | {np.median(seconds):.1f}, {max(seconds):.1f} |")
    tight = [row[mode] for row in rows for mode in modes if row[mode]["relaxed"]]
    if tight:
        for name in ("tightness", "analytic"):
            ratios = [entry[name] for entry in tight if entry[name] is not None]
            middle, high = np.quantile(ratios, (0.5, 0.9))
            print(f"{name}: bound / largest error met on {len(ratios)} relaxed: median {middle:.3f}, 90% {high:.3f}")


if __name__ == "__main__":
    main()
