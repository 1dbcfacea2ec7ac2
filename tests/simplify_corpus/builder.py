"""Writes ONNX models node by node, remembering which channels were pruned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from .channels import LIVE, VARYING, Channels, Mask, Tape, Values

Array = npt.NDArray[Any]
Dims = Sequence[int | str]


@dataclass(frozen=True)
class Pruning:
    """How much is pruned and what is left: `zero` channels, or `constant` ones to propagate."""

    ratio: float = 0.5
    kind: str = "zero"
    seed: int = 0


@dataclass
class Tensor:
    """A tensor of the model under construction; `axis` is its channel axis."""

    name: str
    shape: tuple[int, ...]
    channels: Channels
    axis: int = 1

    @property
    def spatial(self) -> tuple[int, ...]:
        """Sizes of the axes that are neither batch nor channel."""
        return tuple(s for i, s in enumerate(self.shape) if i not in (0, self.axis))


@dataclass(frozen=True)
class Built:
    """A model, input shapes worth trying, and what an ideal removal would cost at the first."""

    model: onnx.ModelProto
    shapes: list[dict[str, tuple[int, ...]]]
    ideal: int
    ideal_with_carriers: int


class Builder:
    """Nodes, initializers and the bookkeeping of channels; layers are added by subclasses."""

    def __init__(
        self,
        pruning: Pruning | None = None,
        *,
        opset: int = 17,
        dtype: Any = np.float32,
        fused: bool = False,
    ) -> None:
        self.pruning = pruning or Pruning()
        self.opset = opset
        self.dtype = np.dtype(dtype)
        self.fused = fused
        self.rng = np.random.default_rng(self.pruning.seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self.domains: dict[str, int] = {}
        self.shapes: list[dict[str, tuple[int, ...]]] = []
        self.tape = Tape()
        self._names = 0

    @property
    def constants(self) -> bool:
        """Whether pruned channels keep a bias and so become constants."""
        return self.pruning.kind == "constant"

    def name(self, stem: str) -> str:
        """A fresh name in the style of exporters, `/layer/Conv_output_0`."""
        self._names += 1
        return f"/{stem.lower()}_{self._names}/{stem}_output_0"

    def initializer(self, array: Array, stem: str = "weight", *, name: str | None = None) -> str:
        """Store `array`; floating arrays take the element type of the model."""
        array = np.asarray(array)
        if array.dtype.kind == "f":
            array = array.astype(self.dtype)
        if name is None:
            self._names += 1
            name = f"layer{self._names}.{stem}"
        self.initializers.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def integers(self, values: Sequence[int], stem: str = "dims") -> str:
        """Store a vector of int64."""
        return self.initializer(np.array(values, dtype=np.int64), stem)

    def node(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> list[str]:
        """Append a node and return the names of its outputs."""
        first = self.name(op)
        names = [first if i == 0 else f"{first}_{i}" for i in range(outputs)]
        domain = attributes.get("domain", "")
        if domain:
            self.domains.setdefault(domain, 1)
        label = first.removesuffix("_output_0")
        self.nodes.append(helper.make_node(op, list(inputs), names, name=label, **attributes))
        return names

    def tensor(self, name: str, shape: Sequence[int], value: Values, axis: int = 1) -> Tensor:
        """Wrap a node's output whose channels have constants `value`."""
        assert shape[axis] == len(value), (name, shape, len(value))
        return Tensor(name, tuple(shape), self.tape.track(Channels(value)), axis)

    def input(self, shape: Sequence[int], *, name: str = "input", dims: Dims | None = None, axis: int = 1) -> Tensor:
        """A model input with example `shape`; `dims` names symbolic dimensions."""
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(dims or shape)))
        if not self.shapes:
            self.shapes.append({})
        self.shapes[0][name] = tuple(shape)
        return self.tensor(name, shape, np.full(shape[axis], LIVE), axis)

    def output(self, x: Tensor, *, dims: Dims | None = None, kind: int | None = None) -> None:
        """Declare `x` an output of the model: all its channels must stay."""
        first = self.inputs[0].type.tensor_type.shape.dim[0]
        batch = first.dim_param if x.shape[0] == self._batch() and first.dim_param else x.shape[0]
        kind = kind or helper.np_dtype_to_tensor_dtype(self.dtype)
        shape = list(dims) if dims is not None else [batch, *x.shape[1:]]
        self.outputs.append(helper.make_tensor_value_info(x.name, kind, shape))
        self.tape.outputs.append(x.channels)

    def _batch(self) -> int:
        return next(iter(self.shapes[0].values()))[0]

    def also_at(self, **shapes: tuple[int, ...]) -> None:
        """Add a set of input shapes at which the model must be right."""
        self.shapes.append({**self.shapes[0], **shapes})

    def build(self) -> Built:
        """The finished model."""
        graph = helper.make_graph(self.nodes, "main_graph", self.inputs, self.outputs, self.initializers)
        imports = [helper.make_opsetid("", self.opset)]
        imports += [helper.make_opsetid(d, v) for d, v in self.domains.items()]
        model = helper.make_model(graph, opset_imports=imports, producer_name="pytorch", functions=self.functions)
        model.ir_version = 8 if self.opset < 19 else 10
        return Built(
            model,
            self.shapes,
            self.tape.multiply_adds(carriers=False),
            self.tape.multiply_adds(carriers=True),
        )

    # Rules by which knowledge of channels passes through nodes -------------------------------

    def select(self, x: Tensor, name: str, index: Array, shape: Sequence[int], axis: int | None = None) -> Tensor:
        """The result `name` whose channel i is channel `index[i]` of `x`."""
        axis = x.axis if axis is None else axis
        result = self.tensor(name, shape, x.channels.value[index], axis)
        result.channels.rank = x.channels.rank

        def rule(carriers: bool) -> None:
            x.channels.kept[index[result.channels.kept]] = True

        self.tape.rules.append(rule)
        return result

    def through(self, xs: Sequence[Tensor], name: str, shape: Sequence[int], value: Values, axis: int = 1) -> Tensor:
        """The result of an element-wise node: kept channels must be kept in all its inputs."""
        result = self.tensor(name, shape, value, axis)
        result.channels.rank = max(x.channels.rank for x in xs)

        def rule(carriers: bool) -> None:
            for x in xs:
                if len(x.channels.kept) == len(result.channels.kept):
                    x.channels.kept |= result.channels.kept
                else:
                    x.channels.kept |= result.channels.kept.any()

        self.tape.rules.append(rule)
        return result

    def wall(self, op: str, xs: Sequence[Tensor], extra: Sequence[str] = (), **attributes: Any) -> Tensor:
        """A node across which no channel may be removed; the result has the shape of `xs[0]`."""
        (name,) = self.node(op, [*(x.name for x in xs), *extra], **attributes)
        return self.opaque(xs, name, xs[0].shape, xs[0].axis)

    def opaque(self, xs: Sequence[Tensor], name: str, shape: Sequence[int], axis: int = 1) -> Tensor:
        """The result `name` of anything that needs every channel of `xs`."""
        result = self.tensor(name, shape, np.full(shape[axis], LIVE), axis)

        def rule(carriers: bool) -> None:
            for x in xs:
                x.channels.kept |= result.channels.kept.any()

        self.tape.rules.append(rule)
        return result

    def chosen(self, count: int, prune: bool | Sequence[int], groups: int = 1) -> Mask:
        """Which of `count` filters are pruned: the same share, drawn at random, in each group."""
        mask = np.zeros((groups, count // groups), dtype=bool)
        if prune is True:
            size = mask.shape[1]
            dead = round(size * self.pruning.ratio)
            dead = min(dead, size - 1) if groups == 1 else dead
            for row in mask:
                row[self.rng.permutation(size)[:dead]] = True
        flat = mask.reshape(-1)
        if not isinstance(prune, bool):
            flat[list(prune)] = True
        return flat


def map_constants(value: Values, function: Callable[[Values], Values]) -> Values:
    """Apply `function` to the constants, leaving LIVE and VARYING entries as they are."""
    result = value.copy()
    known = np.isfinite(value)
    if known.any():
        result[known] = function(value[known])
    return result


def unary(op: str, values: Values, opset: int, attributes: dict[str, Any]) -> Values:
    """The ONNX operator `op` at `values`, by the reference implementation of the standard."""
    node = helper.make_node(op, ["x"], ["y"], **attributes)
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y")]
    graph = helper.make_graph([node], "unary", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    result = ReferenceEvaluator(model).run(None, {"x": values.astype(np.float32)})[0]
    return np.asarray(result, dtype=np.float64)


__all__ = ["LIVE", "VARYING", "Array", "Builder", "Built", "Pruning", "Tensor", "map_constants", "unary"]
