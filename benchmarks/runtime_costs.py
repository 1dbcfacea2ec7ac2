"""Nanoseconds of onnxruntime's kernels with one thread: where the numbers of redy/simplify/cost.py come from.

python benchmarks/runtime_costs.py
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

Arrays = Mapping[str, NDArray[np.generic]]
RNG = np.random.default_rng(0)
REPEATS = 40


def drawn(*shape: int) -> NDArray[np.float32]:
    """Random numbers of this shape."""
    return RNG.standard_normal(shape).astype(np.float32)


def nanoseconds(nodes: Sequence[NodeProto], x: NDArray[np.float32], weights: Arrays) -> float:
    """The shortest of many evaluations of nodes from `x` to `y`."""
    graph = helper.make_graph(
        list(nodes),
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        session.run(None, {"x": x})
        best = min(best, time.perf_counter() - start)
    return best * 1e9


def main() -> None:
    """Print one line per kind of work and size."""
    conv = {"pads": [1, 1, 1, 1]}
    for channels, size in ((64, 56), (32, 14)):
        x = drawn(1, channels, size, size)
        n = x.size
        empty = nanoseconds([helper.make_node("Identity", ["x"], ["y"])], x, {})
        print(f"{channels} channels at {size} x {size}")
        relu = nanoseconds([helper.make_node("Relu", ["x"], ["y"])], x, {})
        print(f"  Relu, per element                        {(relu - empty) / n:.3f}")
        picked = nanoseconds(
            [helper.make_node("Gather", ["x", "i"], ["y"], axis=3)],
            drawn(1, channels, size, 9),
            {"i": np.arange(size) % 9},
        )
        print(f"  Gather along the last axis, per element  {(picked - empty) / n:.3f}")
        weights: dict[str, NDArray[np.generic]] = {
            "v": drawn(channels, channels, 3, 3),
            "w": drawn(channels, channels, 3, 3),
        }
        pair = [
            helper.make_node("Conv", ["x", "v"], ["a"], **conv),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "w"], ["y"], **conv),
        ]
        both = nanoseconds(pair, x, weights)
        print(f"  Conv 3x3, per multiply-add               {both / n / channels / 18:.4f}")
        mapped = [pair[0], helper.make_node("Add", ["a", "m"], ["s"]), helper.make_node("Relu", ["s"], ["b"]), pair[2]]
        extra = nanoseconds(mapped, x, {**weights, "m": drawn(*x.shape)}) - both
        print(f"  a map between two, per element           {extra / n:.3f}")
        for count in (channels, channels - 3):
            deep = nanoseconds(
                [helper.make_node("Conv", ["x", "w"], ["y"], group=count, **conv)],
                drawn(1, count, size, size),
                {"w": drawn(count, 1, 3, 3)},
            )
            print(f"  depthwise of {count} channels, per multiply-add {deep / count / size / size / 9:.4f}")
    chain = [helper.make_node("Abs" if i % 2 else "Neg", [f"a{i}" if i else "x"], [f"a{i + 1}"]) for i in range(20)]
    chain.append(helper.make_node("Neg", ["a20"], ["y"]))
    print(f"one node                                   {nanoseconds(chain, drawn(1, 1), {}) / len(chain):.0f}")


if __name__ == "__main__":
    main()
