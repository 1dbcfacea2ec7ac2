"""Batches of points: a family against its original in onnxruntime with one thread, by CPU time.

python benchmarks/points.py --splits 2 4,4,4,2,2 --sizes 1 1000 100000 1000000
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
from slicing import LOWER, UPPER

import redy
from redy.formats.files import load_model
from redy.rewrite import fuse
from redy.slicing.export_onnx import flat_model, session
from redy.slicing.program import program_of

ROUNDS = 3


def best(call, x: np.ndarray) -> float:
    """CPU seconds of the fastest round after a first one."""
    call(x)
    spent = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        call(x)
        spent.append(time.process_time() - begin)
    return max(min(spent), 1e-9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=Path(os.environ.get("REDY_DATA", "."), "acasxu", "ACASXU_run2a_1_1.onnx"))
    parser.add_argument("--splits", nargs="+", default=["2", "4,4,4,2,2"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 1000, 100_000, 1_000_000])
    parser.add_argument("--work", type=int, default=1_000_000)
    arguments = parser.parse_args()
    network = redy.read_network(load_model(Path(arguments.model)))
    box = redy.Box(np.reshape(LOWER, network.input.shape), np.reshape(UPPER, network.input.shape))
    whole = session(flat_model(program_of(fuse(network))))

    def original(x: np.ndarray) -> np.ndarray:
        return whole.run(None, {"x": x})[0]

    print("| slices | engine, form | points | against the original in onnxruntime |\n| --- | --- | --- | --- |")
    for splits in arguments.splits:
        numbers = tuple(int(part) for part in splits.split(","))
        family = redy.slice_network(
            arguments.model, box, splits=numbers if len(numbers) > 1 else numbers[0], work=arguments.work
        )
        for size in arguments.sizes:
            x = box.sample(size, np.random.default_rng(0)).astype(np.float32).reshape(size, -1)
            x = np.clip(x, *(end.astype(np.float32) for end in family.limits))
            base = best(original, x)
            for engine, form in (("numpy", "folded"), ("onnxruntime", "folded"), ("onnxruntime", "shared")):
                spent = best(partial(family.evaluate, engine=engine, form=form), x)
                print(f"| {len(family)} | {engine}, {form} | {size} | {base / spent:.2f} |", flush=True)


if __name__ == "__main__":
    main()
