"""A network's file: its digest, its graph, and the walk through the graph for a box of inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import onnx
from onnx import external_data_helper, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from .affine import Tensor, constant
from .errors import Unusable
from .operators import COMPUTE, Call, Numbers, Value, floats
from .space import Rows, Space, stacked

OPSET = 7
"""From here on operators broadcast as numpy does."""
MOVES = frozenset(
    (
        *("Concat", "Constant", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Shape", "Slice", "Split"),
        *("Squeeze", "Tile", "Transpose", "Unsqueeze"),
    )
)
"""Operators whose outputs hold elements of their inputs and constants, whatever these are."""


class Graph:
    """An ONNX file of one input.

    Attributes:
        digest: SHA-256 of the file, followed by the files of its external data in the order of first use.
        shape: of the input; an axis of unknown length must be the first and counts as 1.
    """

    def __init__(self, path: Path) -> None:
        try:
            data = path.read_bytes()
            model = onnx.load_model_from_string(data)
            digest, folder = hashlib.sha256(data), path.parent
            tensors = [t for t in model.graph.initializer if external_data_helper.uses_external_data(t)]
            places = [entry.value for t in tensors for entry in t.external_data if entry.key == "location"]
            for place in dict.fromkeys(places):
                digest.update((folder / place).read_bytes())
            external_data_helper.load_external_data_for_model(model, str(folder))
            self.constants: dict[str, Numbers] = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        except Exception as error:  # noqa: BLE001 - a parser may raise anything on hostile bytes
            raise Unusable(f"{path}: cannot be read as an ONNX file: {error}") from None
        self.path, self.digest, self.graph, wrong = (
            path,
            digest.hexdigest(),
            model.graph,
            f"{path}: cannot be certified",
        )
        self.opset = min((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), default=0)
        if model.functions or self.opset < OPSET:
            raise Unusable(f"{wrong}: it holds local functions, or its opset {self.opset} is below {OPSET}")
        inputs = [port for port in self.graph.input if port.name not in self.constants]
        if len(inputs) != 1:
            raise Unusable(f"{wrong}: it has {len(inputs)} inputs")
        self.input, sizes = inputs[0].name, inputs[0].type.tensor_type.shape.dim
        self.shape = tuple(d.dim_value if d.HasField("dim_value") else 1 for d in sizes)
        if min(self.shape, default=1) < 1 or any(not d.HasField("dim_value") for d in sizes[1:]):
            raise Unusable(f"{wrong}: the input's shape is open")
        self.size = int(np.prod(self.shape))

    def walk(self, space: Space, relu: Callable[[Tensor], Tensor]) -> Rows:
        """The rows of all outputs, one after the other; `relu` gives relu(z) for every z met, in order."""
        x = Tensor(space, np.eye(space.n + 1, space.n).reshape(-1, *self.shape), np.zeros(self.shape))
        values: dict[str, Value] = {"": None, **self.constants, self.input: x}
        for node in self.graph.node:
            try:
                found = self._evaluated(node, [values[name] for name in node.input], space, relu)
            except (Unusable, KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                name = node.name or next(iter(node.output), "")
                raise Unusable(f"{self.path}: cannot be certified: {name} ({node.op_type}): {error}") from None
            values.update(zip(node.output, found, strict=False))
        outputs = [values.get(port.name) for port in self.graph.output]
        if not outputs or any(v is None for v in outputs):
            raise Unusable(f"{self.path}: an output is not computed")
        return stacked([(v if isinstance(v, Tensor) else constant(space, floats(v))).rows() for v in outputs])

    def _evaluated(
        self, node: onnx.NodeProto, inputs: list[Value], space: Space, relu: Callable[[Tensor], Tensor]
    ) -> list[Value]:
        if node.domain in {"", "ai.onnx"} and node.op_type in MOVES:
            return self._moved(node, inputs, space)
        if node.domain not in {"", "ai.onnx"} or node.op_type not in COMPUTE or len(node.output) != 1:
            raise Unusable("the operator is not known")
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        return [COMPUTE[node.op_type](Call(attributes, inputs, space, relu))]

    def _moved(self, node: onnx.NodeProto, inputs: list[Value], space: Space) -> list[Value]:
        """What onnx's own evaluation does with the elements' numbers, and with NaN, which constants are not."""
        evaluator = ReferenceEvaluator(node, opsets={"": self.opset})
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        begins = iter(np.cumsum([0, *(t.e.size for t in tensors)]).tolist())
        numbered, marked = dict[str, Numbers](), dict[str, Numbers]()
        for name, value in zip(node.input, inputs, strict=True):
            if isinstance(value, Tensor):
                numbered[name] = float(next(begins)) + np.arange(float(value.e.size)).reshape(value.shape)
                marked[name] = np.full(value.shape, np.nan)
            elif value is not None:
                numbered[name] = marked[name] = floats(value) if tensors and value.dtype.kind == "f" else value
        found = cast("list[Numbers]", evaluator.run(None, marked))
        if not tensors or found[0].dtype.kind != "f":
            return [*found]
        rows = stacked([t.rows() for t in tensors])
        places = cast("list[Numbers]", evaluator.run(None, numbered))
        return [_filled(space, rows, mark, place) for mark, place in zip(found, places, strict=True)]


def _filled(space: Space, rows: Rows, mark: Numbers, number: Numbers) -> Tensor:
    """The tensor of the elements with these numbers where the mark is NaN, else of the constants there."""
    moved = np.isnan(mark)
    T, e = np.zeros((rows.T.shape[1], *mark.shape)), np.zeros(mark.shape)
    T[space.n] = np.where(moved, 0.0, mark)
    chosen = number[moved].astype(np.int64)
    T[:, moved], e[moved] = rows.T[chosen].T, rows.e[chosen]
    return Tensor(space, T, e)
