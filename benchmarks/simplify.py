"""Compare redy with other simplifiers of pruned models, on the same models and in one run.

    python benchmarks/simplify.py [--quick] [--rivals PYTHON] [--networks NAME ...] [--series]

Each tool works in a process of its own, so that its time and peak memory are its own and a crash is
a refusal. torch-simplify, onnxsim and onnxslim are optional: those that the interpreter `--rivals`
(default: this one) lacks are reported as not installed. torch-simplify reads PyTorch modules, so it
gets the model through onnx2torch, and what it returns is exported again.

A result is right if the relative error in onnxruntime is at most 1e-4 on random, large, zero and
constant inputs at the size of the model. Latency is the median of paired ratios, one thread.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

if TYPE_CHECKING:
    from simplify_corpus import Built

TOOLS = ("redy", "torch-simplify", "onnxsim", "onnxslim")
QUICK = ("resnet18", "mobilenet_v2", "squeezenet", "mlp")
SERIES = ("resnet18", 0.5), ("resnet50", 0.5), ("resnet50", 1.0), ("resnet50", 2.0)


@dataclass(frozen=True)
class Outcome:
    """What one tool made of one model; `after` is None where it refused."""

    state: str
    cost: float = float("nan")
    size: float = float("nan")
    latency: float = float("nan")
    seconds: float = float("nan")
    mebibytes: float = float("nan")
    note: str = ""


# The tools, each in a process of its own ---------------------------------------------------------


def by_redy(path: str) -> onnx.ModelProto:
    """`redy simplify`, self-check included."""
    from redy.simplify import simplify  # noqa: PLC0415

    return simplify(onnx.load(path)).model


def by_onnxsim(path: str) -> onnx.ModelProto:
    """onnx-simplifier."""
    import onnxsim  # noqa: PLC0415

    return onnxsim.simplify(onnx.load(path))[0]


def by_onnxslim(path: str) -> onnx.ModelProto:
    """OnnxSlim."""
    import onnxslim  # noqa: PLC0415

    return onnxslim.slim(onnx.load(path))


def by_torch_simplify(path: str) -> onnx.ModelProto:
    """torch-simplify between onnx2torch and torch's exporter."""
    import torch  # noqa: PLC0415

    # A torchvision without its compiled operators (CPU wheels) fails to import for want of these.
    operators = torch.library.Library("torchvision", "FRAGMENT")
    signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            operators.define(name + signature)
    from onnx2torch import convert  # noqa: PLC0415
    from simplify import simplify  # noqa: PLC0415

    model = onnx.load(path)
    for i, node in enumerate(model.graph.node):
        node.name = f"{node.op_type.lower()}{i}"  # torch-simplify looks modules up by names without / . _
    value = model.graph.input[0]
    shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
    example = torch.zeros(shape)
    small = simplify(convert(model).eval(), example)
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / "small.onnx")
        torch.onnx.export(
            small.eval(),
            (example,),
            target,
            dynamo=False,
            input_names=[value.name],
            output_names=[v.name for v in model.graph.output],
        )
        return onnx.load(target)


WORKERS = {
    "redy": by_redy,
    "onnxsim": by_onnxsim,
    "onnxslim": by_onnxslim,
    "torch-simplify": by_torch_simplify,
}


def work(tool: str, source: str, target: str) -> None:
    """Run one tool; print seconds and peak memory, or why it refused, as one line of JSON."""
    if tool != "redy":
        sys.path[:2] = []
        sys.path = [p for p in sys.path if Path(p or ".").resolve() != ROOT / "benchmarks"]
    start = time.perf_counter()
    try:
        result = WORKERS[tool](source)
    except ImportError as fault:
        print(json.dumps({"missing": str(fault)}))
        return
    except Exception as fault:  # noqa: BLE001 - whatever a tool raises is its refusal
        print(json.dumps({"refused": f"{type(fault).__name__}: {str(fault)[:60]}"}))
        return
    seconds = time.perf_counter() - start
    peak = peak_mebibytes()
    onnx.save(result, target)
    print(json.dumps({"seconds": seconds, "mebibytes": peak}))


def peak_mebibytes() -> float:
    """Peak resident memory of this process alone; getrusage would also count the parent's before the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_tool(tool: str, interpreter: str, source: Path, target: Path) -> dict[str, object]:
    """Start the worker and read its line; a worker that dies has refused."""
    command = [interpreter, __file__, "--worker", tool, str(source), str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        return {"refused": "more than 600 s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {"refused": f"exit code {done.returncode}"}


# The yardstick -----------------------------------------------------------------------------------


def latency(before: onnx.ModelProto, after: onnx.ModelProto, built: Built, seconds: float) -> float:
    """Median over paired runs of the time of `after` divided by that of `before`, one thread."""
    from simplify_corpus.compare import feeds, session  # noqa: PLC0415

    pair = [session(before), session(after)]
    feed = next(feeds(before, built.shapes))
    ratios = []
    stop = time.perf_counter() + seconds
    while len(ratios) < 7 or time.perf_counter() < stop:
        times = []
        for s in pair:
            start = time.perf_counter()
            s.run(None, feed)
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
    return float(np.median(ratios[1:]))


def measure(tool: str, interpreter: str, built: Built, folder: Path, seconds: float) -> Outcome:
    """One cell of the table."""
    from simplify_corpus.compare import relative_error  # noqa: PLC0415
    from simplify_corpus.cost import multiply_adds, parameters  # noqa: PLC0415

    source, target = folder / "pruned.onnx", folder / "small.onnx"
    onnx.save(built.model, source)
    line = run_tool(tool, interpreter, source, target)
    if "missing" in line:
        return Outcome("not installed")
    if "refused" in line:
        return Outcome("refused", note=str(line["refused"]))
    after, sizes = onnx.load(target), built.shapes[0]
    try:
        error = relative_error(built.model, after, built.shapes[:1])
        costs = [multiply_adds(m, sizes) for m in (built.model, after)]
    except Exception as fault:  # noqa: BLE001 - a model that onnxruntime refuses is wrong
        return Outcome("wrong", note=f"does not run: {str(fault)[:60]}")
    state = f"wrong ({error:.1g})" if not error <= 1e-4 else "right"
    return Outcome(
        state,
        costs[1] / costs[0],
        parameters(after) / parameters(built.model),
        latency(built.model, after, built, seconds),
        float(str(line["seconds"])),
        float(str(line["mebibytes"])),
    )


def cells(outcome: Outcome) -> str:
    """The columns of one outcome in a Markdown table."""
    if not np.isfinite(outcome.cost):
        return f"{outcome.state} | | | | | {outcome.note.replace('|', '/')}"
    return (
        f"{outcome.state} | {outcome.cost:.3f} | {outcome.size:.3f} | {outcome.latency:.2f} | "
        f"{outcome.seconds:.1f} s | {outcome.mebibytes:.0f} MiB"
    )


def compare(args: argparse.Namespace) -> None:
    """Print the table of all tools on the architectures."""
    from simplify_corpus import ARCHITECTURES, architecture  # noqa: PLC0415

    names = args.networks or (QUICK if args.quick else tuple(ARCHITECTURES))
    width, size = (0.25, 64) if args.quick else (1.0, args.size)
    print("| model | pruned to | ideal | tool | result | mult-adds | params | latency | time | peak memory |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    missing = set()
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            for kind in ("zero", "constant"):
                pixels = 32 if name.startswith("mlp") else size
                built = architecture(name, kind=kind, width=width, size=pixels, fused=False)
                ideal = built.ideal / cost_of(built)
                for tool in (t for t in TOOLS if t not in missing):
                    python = sys.executable if tool == "redy" else args.rivals
                    outcome = measure(tool, python, built, Path(folder), args.seconds)
                    if outcome.state == "not installed":
                        missing.add(tool)
                    print(f"| {name} | {kind} | {ideal:.3f} | {tool} | {cells(outcome)} |", flush=True)


def cost_of(built: Built) -> int:
    """Multiply-adds of the pruned model before anything is removed."""
    from simplify_corpus.cost import multiply_adds  # noqa: PLC0415

    return multiply_adds(built.model, built.shapes[0])


def series(args: argparse.Namespace) -> None:
    """Print time and memory of redy against the size of the model."""
    from simplify_corpus import architecture  # noqa: PLC0415
    from simplify_corpus.cost import parameters  # noqa: PLC0415

    print("\n| model | width | parameters | time | per million parameters | peak memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "pruned.onnx", Path(folder) / "small.onnx"
        for name, width in ((n, w * (0.25 if args.quick else 1.0)) for n, w in SERIES):
            built = architecture(name, kind="constant", width=width, size=64 if args.quick else 224, fused=False)
            onnx.save(built.model, source)
            line = run_tool("redy", sys.executable, source, target)
            millions = parameters(built.model) / 1e6
            if "seconds" not in line:
                print(f"| {name} | {width:g} | {millions:.1f} M | {line} | | |")
                continue
            seconds, peak = float(str(line["seconds"])), float(str(line["mebibytes"]))
            rate = f"{seconds / millions:.2f} s"
            print(f"| {name} | {width:g} | {millions:.1f} M | {seconds:.1f} s | {rate} | {peak:.0f} MiB |")


def main() -> None:
    """Parse the command line and print the tables."""
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:5])
        return
    parser = argparse.ArgumentParser(description="redy and other simplifiers on the same pruned models")
    parser.add_argument("--quick", action="store_true", help="four narrow networks")
    parser.add_argument("--rivals", default=sys.executable, help="interpreter that has the other tools")
    parser.add_argument("--networks", nargs="*", help="only these architectures")
    parser.add_argument("--size", type=int, default=224, help="height and width of images")
    parser.add_argument("--seconds", type=float, default=2.0, help="time spent on each latency")
    parser.add_argument("--only", choices=("table", "series"), help="print one of the two tables")
    args = parser.parse_args()
    if args.only != "series":
        compare(args)
    if args.only != "table":
        series(args)


if __name__ == "__main__":
    main()
