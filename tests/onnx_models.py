"""Small ONNX models for the tests of reading and writing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Nodes = Sequence[onnx.NodeProto]


def model_of(
    nodes: Nodes,
    shape: Sequence[int | str],
    weights: dict[str, np.ndarray] | None = None,
    *,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
    out_kind: int | None = None,
) -> onnx.ModelProto:
    """A model with the input x of `shape` and outputs whose shapes are inferred."""
    infos = [helper.make_tensor_value_info(name, out_kind or kind, None) for name in outputs]
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        infos,
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def node(kind: str, inputs: str, output: str = "y", **attributes: object) -> onnx.NodeProto:
    """A node; `inputs` are separated by blanks, '-' stands for one left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(kind, names, output.split(), **attributes)


def reference(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """The outputs of the ONNX reference implementation for x with its batch axis."""
    name = model.graph.input[0].name
    return [np.asarray(found) for found in ReferenceEvaluator(model).run(None, {name: x})]
