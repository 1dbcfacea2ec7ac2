"""Elements proved stuck where many inputs vary: linear bounds, then splits of ReLUs; CPU seconds of one thread.

    python benchmarks/bounds.py [--work 5e11]

Networks and boxes are those of the folder that REDY_DATA names; balls are around digit 0 of scikit-learn, every pixel
three wide, with a border of two.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from redy.bounds.activation_branching import WORK, branch
from redy.bounds.linear import linear_bounds
from redy.bounds.result import Bounds
from redy.formats.boxes import read_boxes
from redy.formats.onnx_read import read_network
from redy.model import Box, Limits, Network
from redy.questions.seen import sample_points

CASES = [
    ("nets/mnist_256x4.onnx", 0.05),
    ("nets/mnist_256x4.onnx", 0.03),
    ("nets/cifar10_base_kw.onnx", 0.008),
    ("nets/cifar10_resnet_2b.onnx", 0.004),
    ("vnncomp/marabou_cifar10_small.onnx", "vnncomp/marabou_cifar10_small.vnnlib"),
    ("vnncomp/cora_mnist_point.onnx", "vnncomp/cora_img0.vnnlib"),
    ("vnncomp/cgan_32_1.onnx", "vnncomp/cgan_32_1.vnnlib"),
]


def main() -> None:
    """Print one row of a table for every case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=float, default=WORK)
    work = int(parser.parse_args().work)
    data = Path(os.environ["REDY_DATA"])
    print("| network | box | units | linear | seconds | with splits | seconds | still possible |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for model, where in CASES:
        network = read_network(data / model)
        box = _ball(network, where) if isinstance(where, float) else read_boxes(data / where, network.input.shape)[0]
        begin = time.process_time()
        bounds = linear_bounds(network, box, leave_unsupported=True)
        linear = time.process_time() - begin
        most = max(32, 200_000_000 // network.macs)
        points = sample_points(box, most, most, 0)
        begin = time.process_time()
        found = branch(network, box, bounds, points, Limits(work))
        seconds = time.process_time() - begin
        possible = _possible(network, np.concatenate([points[:2000], found.witnesses]))
        row = (Path(model).stem, where if isinstance(where, float) else "its own", network.units)
        proved = _stuck(network, bounds), f"{linear:.1f}", _stuck(network, found.bounds), f"{seconds:.1f}", possible
        print("|", " | ".join(map(str, (*row, *proved))), "|", flush=True)


def _ball(network: Network, radius: float) -> Box:
    if network.input.shape[-1] == 32:
        center = np.random.default_rng(0).random(network.input.shape)
    else:
        center = np.pad(np.kron(load_digits().images[0] / 16, np.ones((3, 3))), 2).reshape(network.input.shape)
    return Box(np.clip(center - radius, 0, 1), np.clip(center + radius, 0, 1))


def _stuck(network: Network, bounds: Bounds) -> int:
    return sum(int((pieces >= 0).sum()) for pieces in bounds.pieces(network).values())


def _possible(network: Network, points: np.ndarray) -> int:
    """Elements that no point shows in two pieces."""
    low: dict[str, np.ndarray] = {}
    high: dict[str, np.ndarray] = {}
    for begin in range(0, len(points), 32):
        values = network.trace(points[begin : begin + 32])
        for node in network.activations:
            z = values[node.source]
            low[node.name] = np.minimum(low.get(node.name, np.inf), z.min(axis=0))
            high[node.name] = np.maximum(high.get(node.name, -np.inf), z.max(axis=0))
    return sum(int((node.function.stuck(low[node.name], high[node.name]) >= 0).sum()) for node in network.activations)


if __name__ == "__main__":
    main()
