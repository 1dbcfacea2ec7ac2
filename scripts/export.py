"""A trained network as ONNX: float32, a symbolic batch dimension, plain names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from training import Array, BatchNorm, Conv, Dense, Flatten, Layer, Relu, Residual, Sequence

OPSET, IR_VERSION = 13, 8


def write_onnx(path: Path, network: Sequence, source: tuple[str, tuple[int, ...]], target: tuple[str, int]) -> None:
    """Write `network`; `source` names the input and gives the shape of a sample, `target` the output and its length."""
    writer = _Writer()
    last = writer.add(network, source[0])
    writer.nodes[-1].output[0] = target[0]
    if last == source[0]:
        raise ValueError("the network has no layer")
    graph = helper.make_graph(
        writer.nodes,
        path.stem,
        [helper.make_tensor_value_info(source[0], TensorProto.FLOAT, ["batch", *source[1]])],
        [helper.make_tensor_value_info(target[0], TensorProto.FLOAT, ["batch", target[1]])],
        writer.initializers,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="redy"
    )
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


class _Writer:
    """Collects nodes and initializers, numbering each kind of layer."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.counts: dict[str, int] = {}

    def add(self, layer: Layer, source: str) -> str:
        """Append the layer; the name of its result."""
        match layer:
            case Residual():
                result = source
                for inner in layer.layers:
                    result = self.add(inner, result)
                return self.node("Add", [source, result])
            case Sequence():
                for inner in layer.layers:
                    source = self.add(inner, source)
                return source
            case Dense():
                return self.node("Gemm", [source], {"weight": layer.weight.value, "bias": layer.bias.value})
            case Conv():
                attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [layer.stride] * 2}
                return self.node("Conv", [source], {"weight": layer.weight.value}, **attributes)
            case BatchNorm():
                statistics = {"mean": layer.mean, "variance": np.maximum(layer.variance, 0)}
                arrays = {"scale": layer.scale.value, "shift": layer.shift.value, **statistics}
                return self.node("BatchNormalization", [source], arrays, epsilon=layer.epsilon)
            case Relu() | Flatten():
                return self.node(type(layer).__name__, [source])
        raise TypeError(f"no ONNX form of {type(layer).__name__}")

    def node(self, kind: str, sources: list[str], arrays: dict[str, Array] | None = None, **attributes: object) -> str:
        """Append one node with its initializers; the name of its result."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        name = f"{kind.lower()}_{self.counts[kind]}"
        for role, values in (arrays or {}).items():
            self.initializers.append(numpy_helper.from_array(values.astype(np.float32), f"{name}.{role}"))
        inputs = [*sources, *(f"{name}.{role}" for role in arrays or {})]
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"
