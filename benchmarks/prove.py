"""Properties: verdicts against the published ones, and CPU seconds, family by family.

python benchmarks/prove.py [--families acas,rl,reach,others] [--marabou PYTHON]

The networks are those of $REDY_DATA. CPU seconds of this process without its start, one run each, in the order of the
list; verdicts are compared with verdicts.csv and instances.csv beside the networks. `--marabou` names a Python in which
maraboupy is installed; it is asked 30 ACAS Xu instances, 60 CPU seconds each, one process an instance. The limit is of
CPU time, so that a machine with other work on it does not shorten it.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import time
from pathlib import Path

import redy

ROOT = Path(__file__).resolve().parent.parent
SAMPLE, SECONDS = 30, 60
WORDS = {"Proved": "unsat", "Refuted": "sat", "Unknown": "unknown"}
OTHERS = {
    "vdp": ("vdp_0", "vdp_6"),
    "gcas": ("gcas_0", "gcas_6"),
    "cartpole": ("cartpole_case_safe_50", "cartpole_case_safe_99"),
    "lunarlander": ("lunarlander_case_safe_0",),
    "tll_8_0_0": ("tll_8_0",),
    "linearize_10_10": ("linearize_10_10",),
    "lindex": ("lindex_1",),
}
MARABOU = """
import math, resource, sys, time
from maraboupy import Marabou
network = Marabou.read_onnx(sys.argv[1])
options = Marabou.createOptions(verbosity=0, timeoutInSeconds=20 * int(sys.argv[3]))
begin = time.process_time()
limit = math.ceil(begin) + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
code, _, _ = network.solve(propertyFilename=sys.argv[2], verbose=False, options=options)
print("verdict", code.lower(), time.process_time() - begin)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default="acas,rl,reach,others")
    parser.add_argument("--marabou", help="a Python in which maraboupy is installed")
    arguments = parser.parse_args()
    data = Path(os.environ.get("REDY_DATA") or ROOT / "models" / "external")
    lists = {"acas": ("acasxu", "verdicts.csv"), "rl": ("vnncomp/rl", "instances.csv")}
    lists["reach"] = "vnncomp/reach", "instances.csv"
    # What is compiled or loaded once is not measured.
    redy.prove(data / "acasxu/ACASXU_run2a_1_1.onnx", data / "acasxu/prop_4.vnnlib")
    print("family  instances  right  unknown  wrong  CPU s in all  median  largest")
    times = {}
    for family in arguments.families.split(","):
        cases = others(data) if family == "others" else listed(data / lists[family][0], lists[family][1])
        times |= measured(family, cases)
    if arguments.marabou:
        marabou(arguments.marabou, listed(data / "acasxu", "verdicts.csv"), times)


def listed(folder, name):
    with (folder / name).open(newline="", encoding="utf-8") as rows:
        return [(folder / network, folder / prop, verdict) for network, prop, verdict in list(csv.reader(rows))[1:]]


def others(data):
    folder = data / "vnncomp"
    return [(folder / f"{n}.onnx", folder / f"{p}.vnnlib", None) for n, props in OTHERS.items() for p in props]


def measured(family, cases):
    seconds, right, unknown, wrong = [], 0, 0, []
    for network, prop, expected in cases:
        begin = time.process_time()
        found = WORDS[type(redy.prove(network, prop, time_limit=SECONDS)).__name__]
        seconds.append(time.process_time() - begin)
        right += found == expected
        unknown += found == "unknown"
        if found != "unknown" and expected not in (found, None):
            wrong.append(f"{network.name} {prop.name}: {found}, published {expected}")
        if expected is None:
            print(f"  {network.name} {prop.name}: {found}, {seconds[-1]:.2f} s")
    print(
        f"{family}  {len(cases)}  {right}  {unknown}  {len(wrong)}  {sum(seconds):.1f}  "
        f"{statistics.median(seconds):.3f}  {max(seconds):.2f}",
        flush=True,
    )
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return {case[:2]: spent for case, spent in zip(cases, seconds, strict=True)}


def marabou(python, cases, times):
    """The same instances in Marabou; the sums are over what both decide."""
    chosen = cases[:: max(1, len(cases) // SAMPLE)][:SAMPLE]
    ours, theirs, decided, apart = 0.0, 0.0, 0, 0
    for network, prop, expected in chosen:
        command = [python, "-c", MARABOU, str(network), str(prop), str(SECONDS)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=40 * SECONDS)
        line = next((row for row in ended.stdout.splitlines() if row.startswith("verdict")), "verdict timeout 60")
        _, verdict, spent = line.split()
        both = f"marabou {verdict} {float(spent):.2f} s, redy {times[network, prop]:.3f} s"
        print(f"  {network.name} {prop.name}: {both}", flush=True)
        if verdict in ("sat", "unsat"):
            decided, ours, theirs = decided + 1, ours + times[network, prop], theirs + float(spent)
            apart += verdict != expected
    print(
        f"marabou: {decided} of {len(chosen)} decided, {apart} otherwise than published; on these CPU s: "
        f"marabou {theirs:.1f}, redy {ours:.2f}"
    )


if __name__ == "__main__":
    main()
