"""Certificates of reductions of ACAS Xu sub-domains: how many there are, their size, cost and what they state.

python benchmarks/certificates.py [--cells 10,5,5,5] [--asked] [--into build/certificates.jsonl]

Sub-domains are those of benchmarks/pipeline.py, draw `integers`. Every finished sub-domain and mode is one JSON line,
appended at once; what the file holds already is not run again. --asked gives the search what `--certificate` gives it.
--summary prints the table of a file and runs nothing. docs/benchmarks-certificates.md quotes what it prints.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from pipeline import LOWER, MODES, ROOT, SPLITS, UPPER, drawn

from redy.certify import check
from redy.certify.claims import Within
from redy.certify.encoding import unpack
from redy.formats.onnx_read import read_network
from redy.model import Box
from redy.reduction import reduce, write_reduction
from redy.reduction.certificate import Certifier

NETWORKS = ("1_1", "3_3", "5_9", "4_5")
CHOSEN = ("outputs", "decision", "tolerance 1e-2")


def main() -> None:
    """Run what is not in the file yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="10,5,5,5", help=f"sub-domains of {', '.join(NETWORKS)}")
    parser.add_argument("--asked", action="store_true", help="search as long as with --certificate")
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "certificates.jsonl")
    parser.add_argument("--until", help="begin nothing new after this time, HH:MM")
    parser.add_argument("--summary", action="store_true", help="only print the table of --into")
    options = parser.parse_args()
    if not options.summary:
        run(options)
    rows = [json.loads(line) for line in options.into.read_text().splitlines()]
    print(f"{time.strftime('%Y-%m-%d')}, python benchmarks/certificates.py {' '.join(sys.argv[1:])}\n")
    summarise(rows)


def run(options: argparse.Namespace) -> None:
    """Append one line per sub-domain and mode that the file does not hold."""
    options.into.parent.mkdir(parents=True, exist_ok=True)
    lines = options.into.read_text().splitlines() if options.into.exists() else []
    done = {(row["network"], row["index"], row["mode"]) for row in map(json.loads, lines)}
    counts = [int(count) for count in options.cells.split(",")]
    for place in range(max(counts)):
        for name, count in zip(NETWORKS, counts, strict=True):
            for mode in CHOSEN:
                index = drawn("integers", 50)[place]
                if place >= count or (name, index, mode) in done:
                    continue
                if options.until and time.strftime("%H:%M") >= options.until:
                    return
                row = {"network": name, "index": index, "mode": mode, **measure(name, index, mode, asked=options.asked)}
                with options.into.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def measure(name: str, index: int, mode: str, *, asked: bool) -> dict[str, Any]:
    """Reduce, certify and check one sub-domain; CPU seconds without start-up."""
    data = Path(os.environ.get("REDY_DATA") or ROOT / "models" / "external") / "acasxu"
    source = data / f"ACASXU_run2a_{name}.onnx"
    network = read_network(source)
    domain = Box(np.reshape(LOWER, network.input.shape), np.reshape(UPPER, network.input.shape))
    given = dict(MODES[mode])
    if "tolerance" in given:
        given["relative_to"] = domain
    begin = time.process_time()
    reduction = reduce(network, domain.grid(SPLITS)[index], **given)
    row: dict[str, Any] = {"reduce": time.process_time() - begin}
    certifier = Certifier(reduction, source, asked=asked)
    spent = 0.0

    def timed(path: Path) -> None:
        nonlocal spent
        begin = time.process_time()
        certifier(path)
        spent = time.process_time() - begin

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "small.onnx"
        write_reduction(reduction, target, original=source, check=timed)
        row |= {"produce": spent, "certified": certifier.data is not None, "reason": certifier.reason}
        if certifier.data is None:
            return row
        begin = time.process_time()
        check(source, target, certifier.data)
        row |= {"check": time.process_time() - begin, "bytes": len(certifier.data)}
    claim, proved = unpack(certifier.data)[0].parts[0].claim, reduction.guarantee.claim
    if isinstance(claim, Within):
        return row | {"weaker": float(claim.error.max() / max(np.max(proved.tolerance), 1e-12))}
    return row | {"weaker": claim.margin / proved.margin}


def summarise(rows: list[dict[str, Any]]) -> None:
    """One line a mode."""
    print("| mode | sub-domains | certified | bytes | check CPU s | check : reduce | stated : proved | producer |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for mode in CHOSEN:
        part = [row for row in rows if row["mode"] == mode]
        made = [row for row in part if row["certified"]]
        if not made:
            continue
        cells = [quantiles([row["bytes"] for row in made], "{:,.0f}"), quantiles([row["check"] for row in made])]
        cells.append(quantiles([row["check"] / row["reduce"] for row in made]))
        cells.append(quantiles([row["weaker"] for row in made]))
        share = sum(row["produce"] for row in part) / sum(row["reduce"] for row in part)
        print(f"| {mode} | {len(part)} | {len(made)} | {' | '.join(cells)} | {share:.0%} |")


def quantiles(values: list[float], form: str = "{:.3g}") -> str:
    """Median, 95% and largest."""
    return " / ".join(form.format(q) for q in np.quantile(values, (0.5, 0.95, 1.0)))


if __name__ == "__main__":
    main()
