"""Other tools on reduced networks: Marabou, gurobi-machinelearning and OMLT with HiGHS on sub-domains of ACAS Xu 1_1.

python benchmarks/downstream.py [--count 10] [--seconds 60] [--into build/downstream]

For each drawn sub-domain the network is reduced (--preserve outputs --fewest relus), into a chain of Gemm and Relu for
gurobi-machinelearning and OMLT, which read nothing else; for them the original is written as a chain, too. Marabou
reads the original file and the reduced network in its own layout. It is asked whether output 0 can exceed the
largest value met at 20,000 points by a tenth of the range of the outputs, the others for the largest output 0. CPU
seconds of one process each, model building included, importing excluded; a limit of CPU time ends them. Needs the tools
(pip install '.[guides]'; one that is not installed is left out) and $REDY_DATA or models/external
(scripts/fetch_acas.py).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from pipeline import LOWER, ROOT, SPLITS, UPPER, drawn

import redy
from redy.bounds.linear import linear_bounds, value_bounds
from redy.formats.onnx_run import Session
from redy.formats.onnx_write import to_model
from redy.model import Box
from redy.rewrite.chain import chained
from redy.rewrite.fuse import fuse
from redy.rewrite.round import round_weights

LIMITED = """
import json, math, resource, sys, time
path, lower, upper, above, seconds = json.loads(sys.argv[1])
def limited():
    begin = time.process_time()
    limit = math.ceil(begin) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    return begin
"""
PACKAGES = {"marabou": "maraboupy", "gurobi_ml": "gurobi_ml", "omlt": "omlt"}
TOOLS = {
    "marabou": """
from maraboupy import Marabou
begin = limited()
network = Marabou.read_onnx(path)
for variable, low, high in zip(network.inputVars[0].flatten(), lower, upper):
    network.setLowerBound(variable, low)
    network.setUpperBound(variable, high)
network.setLowerBound(network.outputVars[0].flatten()[0], above)
answer = network.solve(verbose=False, options=Marabou.createOptions(verbosity=0))[0]
""",
    "gurobi_ml": """
import gurobipy, onnx
from gurobi_ml import add_predictor_constr
begin = limited()
model = gurobipy.Model()
model.Params.OutputFlag = 0
model.Params.Threads = 1
x = model.addMVar((1, 5), lb=lower, ub=upper)
y = model.addMVar((1, 5), lb=-gurobipy.GRB.INFINITY)
add_predictor_constr(model, onnx.load(path), x, y)
model.setObjective(y[0, 0], gurobipy.GRB.MAXIMIZE)
model.optimize()
answer = model.ObjVal
""",
    "omlt": """
import onnx, pyomo.environ as pyo
from omlt import OmltBlock
from omlt.io.onnx import load_onnx_neural_network
from omlt.neuralnet import ReluBigMFormulation
begin = limited()
bounds = {(0, k): ends for k, ends in enumerate(zip(lower, upper))}
model = pyo.ConcreteModel()
model.network = OmltBlock()
model.network.build_formulation(ReluBigMFormulation(load_onnx_neural_network(onnx.load(path), input_bounds=bounds)))
model.cost = pyo.Objective(expr=model.network.outputs[0, 0], sense=pyo.maximize)
solver = pyo.SolverFactory("appsi_highs")
solver.highs_options = {"threads": 1}
solver.solve(model)
answer = pyo.value(model.cost)
""",
}
END = "\nprint('answer', answer, time.process_time() - begin)\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=60, help="CPU seconds of each question")
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "downstream")
    options = parser.parse_args()
    data = Path(os.environ.get("REDY_DATA") or ROOT / "models" / "external")
    original = data / "acasxu" / "ACASXU_run2a_1_1.onnx"
    network = redy.read_network(original)
    options.into.mkdir(parents=True, exist_ok=True)
    rows = {tool: [] for tool in options.tools.split(",") if importlib.util.find_spec(PACKAGES[tool]) is not None}
    if not rows:
        print("none of the tools is installed; pip install '.[guides]'")
        return
    for number, box in enumerate(sub_domains(network, options.count)):
        files, reducing = written(original, network, box, options.into / f"{number}")
        x = box.sample(20_000, np.random.default_rng(0))
        y = network.evaluate(x)
        above = float(y[:, 0].max() + 0.1 * np.ptp(y))
        for tool, times in rows.items():
            both = [asked(tool, path, box, above, options.seconds) for path in files[tool == "marabou"]]
            times.append(both)
            (first, before), (second, after) = both
            print(
                f"{number} {tool}: {first} {before:.2f} s -> {second} {after:.3f} s (reducing {reducing:.1f} s)",
                flush=True,
            )
    for tool, times in rows.items():
        solved = [sum(answer != "none" for answer, _ in column) for column in zip(*times, strict=True)]
        by_one = [(before, after) for (_, before), (answer, after) in times if answer != "none"]
        middle = [statistics.median(column) for column in zip(*by_one, strict=True)] or [math.nan] * 2
        ratio = statistics.median(before / after for before, after in by_one) if by_one else math.nan
        print(
            f"{tool}: solved {solved[0]} -> {solved[1]} of {len(times)}; on those solved on the reduced network median "
            f"{middle[0]:.2f} s -> {middle[1]:.3f} s, median of ratios {ratio:.0f} (the limit counts where it struck)"
        )


def sub_domains(network, count):
    """Those of benchmarks/pipeline.py --draw integers."""
    domain = Box(np.reshape(LOWER, network.input.shape), np.reshape(UPPER, network.input.shape))
    cells = domain.grid(SPLITS)
    return [cells[index] for index in drawn("integers", count)]


def written(original, network, box, folder):
    """(original, reduced) as chains, and as Marabou reads them; the CPU seconds of one reduction."""
    folder.mkdir(exist_ok=True)
    plain, chain, small = (folder / f"{name}.onnx" for name in ("plain", "chain", "small"))
    redy.write_reduction(redy.reduce(network, box, layout="chain", fewest="relus"), chain)
    begin = time.process_time()
    redy.write_reduction(redy.reduce(network, box, fewest="relus"), small)
    spent = time.process_time() - begin

    def lowest(form, name):
        return box.lower if name == form.input.name else value_bounds(form, linear_bounds(form, box), name)[0]

    whole = round_weights(chained(fuse(network), lowest), "float32")
    plain.write_bytes(to_model(whole, plain=True).SerializeToString())
    x = box.sample(100, np.random.default_rng(1))
    before, *after = (Session(path).run(x) for path in (original, plain, chain, small))
    assert all(np.abs(before - other).max() <= 1e-4 * np.abs(before).max() for other in after)
    return ((plain, chain), (original, small)), spent


def asked(tool, path, box, above, seconds):
    """The answer in a word or number, and CPU seconds; "none" where the limit ended the tool."""
    question = json.dumps([str(path), box.lower.ravel().tolist(), box.upper.ravel().tolist(), above, seconds])
    code = LIMITED + TOOLS[tool] + END
    command = [sys.executable, "-c", code, question]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=40 * seconds)
    line = next((row for row in ended.stdout.splitlines() if row.startswith("answer")), None)
    if line is None:
        assert ended.returncode < 0, ended.stderr
        return "none", float(seconds)
    _, answer, spent = line.split()
    return answer, float(spent)


if __name__ == "__main__":
    main()
