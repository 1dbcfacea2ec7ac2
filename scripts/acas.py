"""Reduces ACAS Xu networks on the boxes of their properties and verifies every result: `make acas`.

python scripts/acas.py [--properties 3,4] [--networks 1_1,1_2] [--time-limit 60] [--into build/acas]
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERDICTS = {0: "verified", 3: "unknown"}


def main() -> None:
    """Print one line for each network and property; exit 1 if a run failed or a result was refuted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--properties", default="3,4", help="numbers, separated by commas (default: %(default)s)")
    parser.add_argument("--networks", default="", help="such as 1_1,5_9 (default: all of each property)")
    parser.add_argument("--time-limit", type=float, default=60, help="seconds for each run (default: %(default)s)")
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "acas")
    arguments = parser.parse_args()
    data = Path(os.environ.get("REDY_DATA") or ROOT / "models" / "external") / "acasxu"
    if not data.is_dir():
        sys.exit(f"error: {data} is not there; set REDY_DATA or run: python scripts/fetch_acas.py")
    arguments.into.mkdir(parents=True, exist_ok=True)
    failures = 0
    for network, number in instances(data, arguments.properties.split(","), arguments.networks):
        outcome = reduce_and_verify(data, network, number, arguments.time_limit, arguments.into)
        failures += outcome not in VERDICTS.values()
        print(f"{network} property {number}: {outcome}", flush=True)
    sys.exit(1 if failures else 0)


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


def reduce_and_verify(data: Path, network: str, number: str, limit: float, into: Path) -> str:
    """What came of one network on one property: verified, unknown, or the failure."""
    original, bounds = data / f"ACASXU_run2a_{network}.onnx", data / f"prop_{number}.vnnlib"
    reduced = into / f"{network}_prop_{number}.onnx"
    common = ["--bounds", str(bounds), "--time-limit", str(limit), "--quiet"]
    reduction = redy("reduce", str(original), "-o", str(reduced), *common)
    if reduction.returncode != 0:
        return f"reduce failed, exit {reduction.returncode}: {reduction.stderr.strip()}"
    check = redy("verify", str(original), str(reduced), "--preserve", "outputs", *common)
    return VERDICTS.get(check.returncode, f"verify failed, exit {check.returncode}: {check.stderr.strip()}")


def redy(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "redy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    main()
