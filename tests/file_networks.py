"""Small random ONNX files whose numbers are rounded when they are rewritten, and their evaluation in float64."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

KINDS = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}


@dataclass
class _Builder:
    """Nodes that follow one another; `shape` is that of the last value, without the batch."""

    rng: np.random.Generator
    dtype: str
    shape: tuple[int, ...]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    last: str = "x"

    def weight(self, *shape: int, scale: float = 1.0, positive: bool = False) -> str:
        values = self.rng.normal(size=shape) * scale
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(np.abs(values) + 0.1 if positive else values).astype(self.dtype)
        return name

    def add(
        self, kind: str, *others: str, shape: tuple[int, ...] | None = None, first: bool = True, **attributes
    ) -> None:
        name = f"v{len(self.nodes)}"
        reads = [self.last, *others] if first else [*others, self.last]
        self.nodes.append(helper.make_node(kind, reads, [name], **attributes))
        self.last, self.shape = name, self.shape if shape is None else shape

    def image_layer(self) -> None:
        channels, size = self.shape[0], self.shape[1]
        made, kernel = int(self.rng.integers(1, 5)), int(self.rng.choice([1, 3]))
        weight = self.weight(made, channels, kernel, kernel, scale=(channels * kernel * kernel) ** -0.5)
        pad = kernel // 2
        self.add("Conv", weight, self.weight(made), shape=(made, size, size), pads=[pad] * 4)
        if self.rng.random() < 0.5:
            scale = float(10.0 ** self.rng.integers(-1, 3))
            mean, variance = self.weight(made, scale=scale), self.weight(made, scale=scale, positive=True)
            self.add("BatchNormalization", self.weight(made), self.weight(made), mean, variance)
        self.activation()
        if self.shape[1] >= 4 and self.rng.random() < 0.4:
            half = (made, self.shape[1] // 2, self.shape[2] // 2)
            kind = str(self.rng.choice(["AveragePool", "MaxPool"]))
            self.add(kind, shape=half, kernel_shape=[2, 2], strides=[2, 2])

    def dense_layer(self, made: int) -> None:
        inputs = self.shape[0]
        scale = inputs**-0.5
        if self.rng.random() < 0.5:
            alpha, beta = (float(self.rng.choice([1.0, 0.3, -1.7])) for _ in range(2))
            self.add(
                "Gemm", self.weight(inputs, made, scale=scale), self.weight(made), shape=(made,), alpha=alpha, beta=beta
            )
        else:
            self.add("MatMul", self.weight(inputs, made, scale=scale), shape=(made,))
            self.add("Add", self.weight(made))

    def elementwise(self) -> None:
        size = self.shape if len(self.shape) == 1 else (self.shape[0], 1, 1)
        kind = str(self.rng.choice(["Div", "Mul", "Sub", "Add"]))
        self.add(kind, self.weight(*size, positive=kind == "Div"))

    def activation(self) -> None:
        kind = str(self.rng.choice(["Relu", "Relu", "Relu", "LeakyRelu", "PRelu", "HardSigmoid", "Clip"]))
        if kind == "PRelu":
            slope = self.shape if len(self.shape) == 1 else (self.shape[0], 1, 1)
            self.add(kind, self.weight(*slope, scale=0.3))
        elif kind == "Clip":
            ends = sorted(self.rng.normal(size=2))
            for end in ends:
                self.weights[f"w{len(self.weights)}"] = np.array(end, dtype=self.dtype)
            self.add(kind, *list(self.weights)[-2:])
        elif kind == "LeakyRelu":
            self.add(kind, alpha=float(self.rng.uniform(0.01, 0.5)))
        elif kind == "HardSigmoid":
            self.add(kind, alpha=float(self.rng.uniform(0.1, 0.5)), beta=float(self.rng.uniform(0.2, 0.8)))
        else:
            self.add(kind)


def random_model(seed: int) -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    """A model with the input x and the output y of three numbers, and the lower and upper ends of a box."""
    rng = np.random.default_rng(seed)
    dtype = str(rng.choice(["float32", "float32", "float64", "float16"]))
    image = rng.random() < 0.6
    shape = (int(rng.integers(1, 3)), 4, 4) if image else (int(rng.integers(1, 6)),)
    build = _Builder(rng, dtype, shape)
    if rng.random() < 0.4:
        build.elementwise()
    if image:
        for _ in range(int(rng.integers(1, 3))):
            build.image_layer()
        build.add("Flatten", shape=(int(np.prod(build.shape)),))
    for _ in range(int(rng.integers(0, 3))):
        build.dense_layer(int(rng.integers(1, 7)))
        if rng.random() < 0.3:
            build.elementwise()
        build.activation()
    build.dense_layer(3)
    build.nodes[-1].output[0] = "y"
    graph = helper.make_graph(
        build.nodes,
        "random",
        [helper.make_tensor_value_info("x", KINDS[dtype], ["N", *shape])],
        [helper.make_tensor_value_info("y", KINDS[dtype], ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in build.weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    middle, radius = rng.normal(size=shape), float(rng.choice([0.01, 0.1, 0.5, 1.0]))
    return model, middle - radius, middle + radius


def widened(model: onnx.ModelProto) -> ReferenceEvaluator:
    """The model with every number widened to float64 and BatchNormalization as a product and a sum."""
    wide = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in wide.graph.initializer:
        if tensor.data_type in _FLOATS:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for node in wide.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in _FLOATS:
                array = numpy_helper.to_array(attribute.t).astype(np.float64)
                attribute.t.CopyFrom(numpy_helper.from_array(array, attribute.t.name))
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _FLOATS:
                attribute.i = TensorProto.DOUBLE
    for info in [*wide.graph.input, *wide.graph.output, *wide.graph.value_info]:
        if info.type.tensor_type.elem_type in _FLOATS:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    return ReferenceEvaluator(wide)
