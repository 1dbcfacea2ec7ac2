"""Reduces ACAS Xu networks on the boxes of their properties, and asks everything of every result: `make acas`.

For each network and property: reduce the network on each box of the property, verify what the result states about
itself, check its certificate where there is one, and prove the property of the original and of the result. A table at
the end; exit code 1 if a run failed, a reduction was refuted, a certificate was rejected, or a verdict differs from the
published one or between original and reduced network.

python scripts/acas.py [--properties 1,2,3] [--networks 1_1,1_2] [--reduce-seconds 3] [--jobs 2] [--into build/acas]
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redy
from redy.cli.main import run

ROOT = Path(__file__).resolve().parent.parent
VERIFIED = {0: "verified", 3: "unknown"}
PUBLISHED = {"unsat": "holds", "sat": "violated"}
PROVE_SECONDS = 60


@dataclass(frozen=True)
class Outcome:
    """One network and property: what came of each step, and what went wrong, if anything did."""

    network: str
    number: str
    equivalent: str
    certificate: str
    original: str
    reduced: str
    seconds: float
    fault: str = ""


def main() -> None:
    """Print one line for each network and property, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--properties", default=",".join(map(str, range(1, 11))), help="numbers (default: all)")
    parser.add_argument("--networks", default="", help="such as 1_1,5_9 (default: all of each property)")
    parser.add_argument("--reduce-seconds", type=float, default=3, help="for each reduction (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at once (default: %(default)s)")
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "acas")
    arguments = parser.parse_args()
    data = Path(os.environ.get("REDY_DATA") or ROOT / "models" / "external") / "acasxu"
    if not data.is_dir():
        sys.exit(f"error: {data} is not there; set REDY_DATA or run: python scripts/fetch_acas.py")
    arguments.into.mkdir(parents=True, exist_ok=True)
    asked = instances(data, arguments.properties.split(","), arguments.networks)
    work = partial(outcome, data, arguments.into, arguments.reduce_seconds)
    outcomes = []
    with ProcessPoolExecutor(arguments.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(work, asked):
            outcomes.append(found)
            print(line(found), flush=True)
    print(table(outcomes))
    sys.exit(1 if any(found.fault for found in outcomes) or not outcomes else 0)


def instances(data: Path, properties: list[str], networks: str) -> list[tuple[str, str]]:
    """The (network, property) pairs of the benchmark's list that were asked for."""
    chosen = []
    with (data / "acasxu_instances.csv").open(newline="", encoding="utf-8") as rows:
        for model, constraint, *_ in csv.reader(rows):
            network = model.removeprefix("ACASXU_run2a_").removesuffix("_batch_2000.onnx")
            number = constraint.removeprefix("prop_").removesuffix(".vnnlib")
            if number in properties and (not networks or network in networks.split(",")):
                chosen.append((network, number))
    return chosen


def outcome(data: Path, into: Path, limit: float, instance: tuple[str, str]) -> Outcome:
    """Everything about one network and property."""
    begin = time.perf_counter()
    network, number = instance
    original = data / f"ACASXU_run2a_{network}.onnx"
    claim = redy.read_property(data / f"prop_{number}.vnnlib", redy.read_network(original).input.shape, 5)
    faults: list[str] = []
    equivalent, certificates, verdicts = [], [], []
    for place, (box, conjunctions) in enumerate(claim.boxes().items()):
        small = into / f"{network}_prop_{number}_{place}.onnx"
        bounds = into / f"{network}_prop_{number}_{place}.box.json"
        bounds.write_text(json.dumps({"lower": box.lower.tolist(), "upper": box.upper.tolist()}), encoding="utf-8")
        equivalent.append(reduce_and_verify(original, bounds, small, limit, faults))
        certificates.append(checked(original, small, faults))
        part = redy.Property(tuple(conjunctions), claim.name)
        verdicts.append(word(redy.prove(small, part, time_limit=PROVE_SECONDS)) if small.exists() else "not written")
    first = word(redy.prove(original, claim, time_limit=PROVE_SECONDS))
    second = next((v for v in ("not written", "violated", "unknown") if v in verdicts), "holds")
    expected = published(data, original.name, f"prop_{number}.vnnlib")
    if expected is not None and first != expected:
        faults.append(f"the published verdict is {expected}")
    if first != second:
        faults.append("original and reduced network differ")
    shown = next((v for v in equivalent if v != "verified"), "verified")
    certificate = next((c for c in certificates if c != "accepted"), "accepted")
    return Outcome(network, number, shown, certificate, first, second, time.perf_counter() - begin, "; ".join(faults))


def reduce_and_verify(original: Path, bounds: Path, small: Path, limit: float, faults: list[str]) -> str:
    """Whether what the reduced network states in its metadata was verified: verified, unknown, or what failed."""
    for path in (small, small.with_suffix(".cert")):
        path.unlink(missing_ok=True)
    reducing = ["reduce", str(original), "-o", str(small), "--bounds", str(bounds), "--time-limit", str(limit)]
    code, text = redy_command(*reducing, "--quiet")
    if code != 0:
        faults.append(f"reduce ended with {code}: {text}")
        return "not reduced"
    code, text = redy_command("verify", str(original), str(small), "--time-limit", str(PROVE_SECONDS), "--quiet")
    if code not in VERIFIED:
        faults.append(f"verify ended with {code}: {text}")
    return VERIFIED.get(code, "refuted" if code == 1 else "failed")


def line(found: Outcome) -> str:
    """One outcome in a line."""
    failed = f" FAILED: {found.fault}" if found.fault else ""
    return (
        f"{found.network} property {found.number}: {found.original}; reduced: {found.equivalent}, certificate "
        f"{found.certificate}, {found.reduced} ({found.seconds:.1f} s){failed}"
    )


def checked(original: Path, small: Path, faults: list[str]) -> str:
    """Whether the checker accepts the certificate that was written beside the reduced network: none, or its answer."""
    certificate = small.with_suffix(".cert")
    if not certificate.exists():
        return "none"
    code, text = redy_command("check", str(original), str(small), str(certificate))
    if code != 0:
        faults.append(f"check ended with {code}: {text}")
    return "accepted" if code == 0 else "rejected"


def redy_command(*arguments: str) -> tuple[int, str]:
    """The exit code of the command line in this process, which spares its start, and what it said on stderr."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = run(list(arguments))
    return code, said.getvalue().strip()


def word(verdict: object) -> str:
    """The verdict in a word."""
    return {"Proved": "holds", "Refuted": "violated"}.get(type(verdict).__name__, "unknown")


def published(data: Path, network: str, prop: str) -> str | None:
    """The published verdict, where the data hold it."""
    path = data / "verdicts.csv"
    if path.exists():
        with path.open(newline="", encoding="utf-8") as rows:
            for name, constraint, verdict in csv.reader(rows):
                if (name, constraint) == (network, prop):
                    return PUBLISHED[verdict]
    return None


def table(outcomes: list[Outcome]) -> str:
    """Per property: how many networks, how many reductions verified, how often the property holds, and seconds."""
    lines = ["", "property  networks  verified  certified  holds  violated  unknown  failed  seconds"]
    for number in sorted({found.number for found in outcomes}, key=int):
        group = [found for found in outcomes if found.number == number]
        verdicts = Counter(found.original for found in group)
        lines.append(
            f"{number:>8}  {len(group):>8}  {sum(found.equivalent == 'verified' for found in group):>8}  "
            f"{sum(found.certificate == 'accepted' for found in group):>9}  "
            f"{verdicts['holds']:>5}  {verdicts['violated']:>8}  {verdicts['unknown']:>7}  "
            f"{sum(bool(found.fault) for found in group):>6}  {sum(found.seconds for found in group):>7.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
