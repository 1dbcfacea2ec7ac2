"""Small models for tests, written node by node, and what is asked of every result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from redy.simplify import Simplified, simplify
from redy.simplify.check import session

Array = NDArray[np.float64]


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    outputs: Mapping[str, Sequence[int | str | None]],
    weights: Mapping[str, NDArray[np.generic]],
    *,
    opset: int = 17,
    ir_version: int = 8,
    dtype: type = np.float32,
) -> onnx.ModelProto:
    """A model with one input `x`; float weights take `dtype`."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensors = [
        numpy_helper.from_array(np.asarray(w, dtype=dtype if np.asarray(w).dtype.kind == "f" else np.int64), n)
        for n, w in weights.items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(n, kind, s) for n, s in outputs.items()],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.checker.check_model(made)
    return made


def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    """A node from names separated by spaces."""
    return helper.make_node(
        op, inputs.split(), output.split(), name=f"{op}_{output.split(maxsplit=1)[0]}", **attributes
    )


def weights_of(made: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}


def ops(made: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in made.graph.node]


def shapes(made: onnx.ModelProto, op: str) -> list[tuple[int, ...]]:
    """Shapes of the weights (second input) of every node of a kind."""
    held = weights_of(made)
    return [held[n.input[1]].shape for n in made.graph.node if n.op_type == op and n.input[1] in held]


def run(made: onnx.ModelProto, x: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    return list(session(made, threads=1).run(None, {"x": x}))


def simplified(
    made: onnx.ModelProto, *sizes: Sequence[int], tolerance: float = 2e-6, residual: str = "auto", scale: float = 1.0
) -> Simplified:
    """Simplify; the result must be valid, no larger, with the same interface, and equal at all `sizes` of x."""
    before = made.SerializeToString()
    result = simplify(made, residual=residual)
    assert made.SerializeToString() == before
    assert not any("internal" in reason for reason in result.report.refused)
    onnx.checker.check_model(result.model, full_check=True)
    assert list(result.model.graph.input)[:1] == list(made.graph.input)[:1]
    assert list(result.model.graph.output) == list(made.graph.output)
    assert result.report.after.parameters <= result.report.before.parameters
    rng = np.random.default_rng(0)
    kind = helper.tensor_dtype_to_np_dtype(made.graph.input[0].type.tensor_type.elem_type)
    for size in sizes:
        x = (rng.normal(size=size) * scale).astype(kind)
        for a, b in zip(run(made, x), run(result.model, x), strict=True):
            assert a.shape == b.shape
            assert a.dtype == b.dtype
            largest = max(float(np.abs(a.astype(np.float64)).max(initial=0)), 1e-3)
            np.testing.assert_allclose(b.astype(np.float64), a.astype(np.float64), atol=tolerance * largest, rtol=0)
    return result


def filters(rng: np.random.Generator, shape: Sequence[int], dead: Sequence[int] = ()) -> Array:
    """Random weights with zeroed filters."""
    weight = rng.normal(size=tuple(shape))
    weight[list(dead)] = 0
    return weight


__all__ = ["TensorProto", "filters", "model", "node", "ops", "run", "shapes", "simplified", "weights_of"]
