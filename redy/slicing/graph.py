"""An ONNX graph that grows node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from redy.version import __version__

OPSET = 17


class Graph:
    """Nodes and initializers as they are made."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}

    def constant(self, name: str, values: ArrayLike, dtype: DTypeLike = np.int64) -> str:
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(np.asarray(values, dtype=dtype)), name)
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:  # noqa: ANN401 - as ONNX has them
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def model(self, inputs: list[Any], outputs: list[Any], metadata: dict[str, str]) -> ModelProto:
        graph = helper.make_graph(self.nodes, "redy", inputs, outputs, list(self.initializers.values()))
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=8,
            producer_name="redy",
            producer_version=__version__,
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model
