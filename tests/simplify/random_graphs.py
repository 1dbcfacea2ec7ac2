"""Random convolutional graphs with zeroed channels, for properties that must hold whatever the graph."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, int, int]  # channels, height, width

ACTIVATIONS = ("Relu", "Sigmoid", "HardSigmoid", "Softplus", "Tanh", "LeakyRelu", "HardSwish", "Elu", "Identity", "Abs")


class RandomGraph:
    """Grows a graph node by node; `shapes` holds every tensor that may still be read."""

    def __init__(self, seed: int, *, dynamic: bool = False, size: tuple[int, int] = (9, 8)) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.count = 0
        channels = int(self.rng.integers(1, 5))
        self.shapes: dict[str, Shape] = {"input": (channels, *size)}
        self.channels = channels
        self.size = size
        self.dynamic = dynamic
        self.outputs: dict[str, Shape] = {}

    def constant(self, array: NDArray[np.generic]) -> str:
        self.count += 1
        dtype = np.float32 if array.dtype.kind == "f" else np.int64
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype=dtype), f"w{self.count}"))
        return f"w{self.count}"

    def node(self, op: str, inputs: list[str], outputs: int = 1, **attributes: object) -> list[str]:
        names = [f"t{self.count}_{k}" for k in range(outputs)]
        self.count += 1
        self.nodes.append(helper.make_node(op, inputs, names, name=f"n{self.count}", **attributes))
        return names

    def pick(self) -> tuple[str, Shape]:
        names = list(self.shapes)
        weights = np.arange(1, len(names) + 1) ** 2.0
        name = str(self.rng.choice(names, p=weights / weights.sum()))
        return name, self.shapes[name]

    def sparse(self, array: NDArray[np.float64]) -> NDArray[np.float64]:
        """Zero some rows (filters), and now and then some columns (inputs)."""
        array = array.copy()
        array[self.rng.random(array.shape[0]) < self.rng.choice([0.0, 0.4, 0.8, 1.0], p=[0.2, 0.5, 0.25, 0.05])] = 0
        if self.rng.random() < 0.3 and array.ndim > 1:
            array[:, self.rng.random(array.shape[1]) < 0.4] = 0
        return array

    def bias(self, n: int) -> NDArray[np.float64]:
        return self.rng.normal(size=n) * self.rng.choice([0.0, 1.0], p=[0.3, 0.7])

    # --- one method per kind of node -----------------------------------------------------------------------------

    def conv(self) -> None:
        name, (c, h, w) = self.pick()
        groups = int(self.rng.choice([g for g in (1, 1, 2, 4, c) if c % g == 0]))
        out = groups * int(self.rng.integers(1, 1 + max(1, 8 // groups)))
        kernel = int(self.rng.choice([1, 2, 3]))
        stride, dilation = int(self.rng.choice([1, 1, 2])), int(self.rng.choice([1, 1, 2]))
        pads = [int(self.rng.integers(0, kernel)) for _ in range(4)]
        h2, w2 = ((n + pads[i] + pads[i + 2] - dilation * (kernel - 1) - 1) // stride + 1 for i, n in enumerate((h, w)))
        if h2 < 1 or w2 < 1:
            return
        weight = self.sparse(self.rng.normal(size=(out, c // groups, kernel, kernel)))
        inputs = [name, self.constant(weight)]
        if self.rng.random() < 0.7:
            inputs.append(self.constant(self.bias(out)))
        (y,) = self.node(
            "Conv",
            inputs,
            strides=[stride] * 2,
            dilations=[dilation] * 2,
            pads=pads,
            group=groups,
            kernel_shape=[kernel] * 2,
        )
        self.shapes[y] = (out, h2, w2)

    def conv_transpose(self) -> None:
        name, (c, h, w) = self.pick()
        if h > 16 or w > 16:
            return
        out, kernel, stride = int(self.rng.integers(1, 6)), int(self.rng.choice([2, 3])), int(self.rng.choice([1, 2]))
        groups = 2 if c % 2 == 0 and self.rng.random() < 0.3 else 1
        weight = self.rng.normal(size=(c, out, kernel, kernel))
        weight[:, self.rng.random(out) < 0.4] = 0
        (y,) = self.node(
            "ConvTranspose",
            [name, self.constant(weight), self.constant(self.bias(out * groups))],
            strides=[stride] * 2,
            group=groups,
        )
        self.shapes[y] = (out * groups, (h - 1) * stride + kernel, (w - 1) * stride + kernel)

    def activation(self) -> None:
        name, shape = self.pick()
        (y,) = self.node(str(self.rng.choice(ACTIVATIONS)), [name])
        self.shapes[y] = shape

    def clip(self) -> None:
        name, shape = self.pick()
        (y,) = self.node("Clip", [name, self.constant(np.array(0.25)), self.constant(np.array(6.0))])
        self.shapes[y] = shape

    def prelu(self) -> None:
        name, (c, h, w) = self.pick()
        (y,) = self.node("PRelu", [name, self.constant(self.rng.normal(size=(c, 1, 1)))])
        self.shapes[y] = (c, h, w)

    def batch_norm(self) -> None:
        name, (c, h, w) = self.pick()
        scale = self.sparse(self.rng.normal(size=c))
        parameters = [scale, self.bias(c), self.rng.normal(size=c), self.rng.random(c) + 0.5]
        (y,) = self.node("BatchNormalization", [name, *(self.constant(p) for p in parameters)])
        self.shapes[y] = (c, h, w)

    def arithmetic(self) -> None:
        name, shape = self.pick()
        same = [n for n, s in self.shapes.items() if s == shape]
        op = str(self.rng.choice(["Add", "Sub", "Mul", "Max"]))
        if self.rng.random() < 0.5:
            other = str(self.rng.choice(same))
        else:
            c, h, w = shape
            choice: list[tuple[int, ...]] = [(1,), (c, 1, 1), (1, c, 1, 1)] + (
                [] if self.dynamic else [(h, 1), (c, h, w), (1, w)]
            )
            array = self.rng.normal(size=choice[int(self.rng.integers(len(choice)))])
            array[self.rng.random(array.shape) < 0.2] = 0
            other = self.constant(array)
        (y,) = self.node(op, [name, other])
        self.shapes[y] = shape

    def concat(self) -> None:
        name, shape = self.pick()
        same = [n for n, s in self.shapes.items() if s[1:] == shape[1:]]
        other = str(self.rng.choice(same))
        if shape[0] + self.shapes[other][0] > 24:
            return
        (y,) = self.node("Concat", [name, other], axis=1)
        self.shapes[y] = (shape[0] + self.shapes[other][0], *shape[1:])

    def split(self) -> None:
        name, (c, h, w) = self.pick()
        if c < 2:
            return
        first = int(self.rng.integers(1, c))
        a, b = self.node("Split", [name, self.constant(np.array([first, c - first]))], 2, axis=1)
        self.shapes[a], self.shapes[b] = (first, h, w), (c - first, h, w)

    def slice_channels(self) -> None:
        name, (c, h, w) = self.pick()
        start, step = int(self.rng.integers(0, c)), int(self.rng.choice([1, 2]))
        bounds = [self.constant(np.array([v])) for v in (start, c, 1, step)]
        (y,) = self.node("Slice", [name, *bounds])
        self.shapes[y] = (len(range(start, c, step)), h, w)

    def shuffle(self) -> None:
        name, (c, h, w) = self.pick()
        if c % 2 or self.dynamic:
            return
        (y,) = self.node("Reshape", [name, self.constant(np.array([0, 2, c // 2, h, w]))])
        (y,) = self.node("Transpose", [y], perm=[0, 2, 1, 3, 4])
        (y,) = self.node("Reshape", [y, self.constant(np.array([0, c, h, w]))])
        self.shapes[y] = (c, h, w)

    def pool(self) -> None:
        name, (c, h, w) = self.pick()
        if h < 3 or w < 3:
            return
        stride, pad = int(self.rng.choice([1, 2])), int(self.rng.choice([0, 1]))
        op = str(self.rng.choice(["MaxPool", "AveragePool"]))
        extra = {"count_include_pad": int(self.rng.integers(0, 2))} if op == "AveragePool" else {}
        (y,) = self.node(op, [name], kernel_shape=[3, 3], strides=[stride] * 2, pads=[pad] * 4, **extra)
        self.shapes[y] = (c, (h + 2 * pad - 3) // stride + 1, (w + 2 * pad - 3) // stride + 1)

    def pad(self) -> None:
        name, (c, h, w) = self.pick()
        if h < 3 or w < 3 or h > 20:
            return
        mode = str(self.rng.choice(["constant", "constant", "reflect", "edge"]))
        extra = int(self.rng.integers(0, 2)) if mode == "constant" else 0
        inputs = [name, self.constant(np.array([0, extra, 1, 2, 0, 0, 2, 1]))]
        if mode == "constant":
            inputs.append(self.constant(np.array(0.5)))
        (y,) = self.node("Pad", inputs, mode=mode)
        self.shapes[y] = (c + extra, h + 3, w + 3)

    def gate(self) -> None:
        name, (c, h, w) = self.pick()
        (g,) = self.node("GlobalAveragePool", [name])
        weight = self.sparse(self.rng.normal(size=(c, c, 1, 1)))
        (g,) = self.node("Conv", [g, self.constant(weight), self.constant(self.bias(c))])
        (g,) = self.node("Sigmoid", [g])
        (y,) = self.node("Mul", [name, g])
        self.shapes[y] = (c, h, w)

    def depth_to_space(self) -> None:
        name, (c, h, w) = self.pick()
        if c % 4 or h > 16:
            return
        (y,) = self.node("DepthToSpace", [name], blocksize=2, mode=str(self.rng.choice(["DCR", "CRD"])))
        self.shapes[y] = (c // 4, 2 * h, 2 * w)

    def softmax(self) -> None:
        name, shape = self.pick()
        (y,) = self.node("Softmax", [name], axis=int(self.rng.choice([1, 3])))
        self.shapes[y] = shape

    def linear_head(self) -> None:
        name, (c, h, w) = self.pick()
        if self.dynamic:
            (name,) = self.node("GlobalAveragePool", [name])
            h = w = 1
        (y,) = self.node("Flatten", [name], axis=1)
        weight = self.sparse(self.rng.normal(size=(5, c * h * w)))
        (y,) = self.node("Gemm", [y, self.constant(weight), self.constant(self.bias(5))], transB=1)
        (y,) = self.node("Sigmoid", [y])
        (y,) = self.node("MatMul", [y, self.constant(self.rng.normal(size=(5, 3)))])
        self.outputs[y] = (3, 0, 0)

    def model(self, length: int) -> onnx.ModelProto:
        kinds = [
            self.conv,
            self.conv,
            self.conv,
            self.conv,
            self.activation,
            self.activation,
            self.clip,
            self.prelu,
            self.batch_norm,
            self.arithmetic,
            self.arithmetic,
            self.concat,
            self.split,
            self.slice_channels,
            self.shuffle,
            self.pool,
            self.pad,
            self.gate,
            self.depth_to_space,
            self.softmax,
            self.conv_transpose,
        ]
        for _ in range(length):
            kinds[int(self.rng.integers(len(kinds)))]()
        last = list(self.shapes)[-1]
        self.conv()
        self.outputs[list(self.shapes)[-1]] = self.shapes[list(self.shapes)[-1]]
        if self.rng.random() < 0.5:
            self.linear_head()
        if self.rng.random() < 0.3:
            self.outputs[last] = self.shapes[last]
        self.outputs.pop("input", None)
        if not self.outputs:
            (y,) = self.node("Identity", ["input"])
            self.outputs[y] = self.shapes["input"]
        return self._finish()

    def _finish(self) -> onnx.ModelProto:
        def info(name: str, shape: Shape) -> onnx.ValueInfoProto:
            rank = 2 if shape[1] == 0 else 4
            dims: list[int | str] = ["batch", *shape[: rank - 1]]
            if self.dynamic and rank == 4:
                dims[2:] = [f"{name}_h", f"{name}_w"]
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)

        graph = helper.make_graph(
            self.nodes,
            "random",
            [info("input", (self.channels, *self.size))],
            [info(n, s) for n, s in self.outputs.items()],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return model
