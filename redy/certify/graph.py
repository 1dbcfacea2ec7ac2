"""A network's file: its digest, its graph, and the walk through the graph for a box of inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import external_data_helper, numpy_helper

from .affine import Affine, Tensor
from .errors import Unusable
from .movement import MOVE, split
from .operators import COMPUTE, Call, Numbers, Relu, Value
from .space import Rows

OPSET = 7
"""From here on operators broadcast as numpy does."""


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
        except Exception as error:  # noqa: BLE001 - a parser may raise anything on hostile bytes
            raise Unusable(f"{path}: cannot be read as an ONNX file: {error}") from None
        self.path, self.digest, self.graph = path, digest.hexdigest(), model.graph
        opset = min((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), default=0)
        if model.functions or opset < OPSET:
            raise Unusable(
                f"{path}: cannot be certified: it holds local functions, or its opset {opset} is below {OPSET}"
            )
        self.constants: dict[str, Numbers] = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        inputs = [port for port in self.graph.input if port.name not in self.constants]
        if len(inputs) != 1:
            raise Unusable(f"{path}: cannot be certified: it has {len(inputs)} inputs")
        self.input, sizes = inputs[0].name, inputs[0].type.tensor_type.shape.dim
        self.shape = tuple(d.dim_value if d.HasField("dim_value") else 1 for d in sizes)
        if min(self.shape, default=1) < 1 or any(not d.HasField("dim_value") for d in sizes[1:]):
            raise Unusable(f"{path}: cannot be certified: the input's shape is open")

    @property
    def size(self) -> int:
        """The number of inputs."""
        return int(np.prod(self.shape))

    def walk(self, affine: Affine, relu: Relu) -> Rows:
        """The rows of all outputs, one after the other; `relu` gives relu(z) for every z met, in order."""
        values: dict[str, Value] = {"": None, **self.constants, self.input: affine.input(self.shape)}
        for node in self.graph.node:
            found = self._evaluated(node, values, affine, relu)
            values.update(zip(node.output, found, strict=False))
        outputs = [values.get(port.name) for port in self.graph.output]
        tensors = [affine.constant(v) if isinstance(v, np.ndarray) else v for v in outputs]
        if not tensors or not all(isinstance(t, Tensor) for t in tensors):
            raise Unusable(f"{self.path}: an output is not computed")
        rows = [t.rows() for t in tensors if isinstance(t, Tensor)]
        width = max(r.T.shape[1] for r in rows)
        return Rows(np.concatenate([r.padded(width) for r in rows]), np.concatenate([r.e for r in rows]))

    def _evaluated(self, node: Any, values: dict[str, Value], affine: Affine, relu: Relu) -> list[Value]:  # noqa: ANN401
        name = node.name or next(iter(node.output), node.op_type)
        try:
            if node.domain not in {"", "ai.onnx"}:
                raise Unusable(f"operator {node.domain}.{node.op_type} is not known")  # noqa: TRY301
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            call = Call(attributes, [values[i] for i in node.input], len(node.output), affine, relu)
            if node.op_type == "Split":
                return split(call)
            operator: Callable[[Call], Value] | None = COMPUTE.get(node.op_type) or MOVE.get(node.op_type)
            if operator is None or len(node.output) != 1:
                raise Unusable(f"operator {node.op_type} is not known")  # noqa: TRY301
            return [operator(call)]
        except (Unusable, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise Unusable(f"{self.path}: cannot be certified: {name} ({node.op_type}): {error}") from None
