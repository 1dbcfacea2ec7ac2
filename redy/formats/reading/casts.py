"""Casts: to a wider type the value itself, to a narrower one a rounding, which is a function of its own."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
from onnx import TensorProto

from redy.formats.reading.graph import Graph, Op, Refused, Tensor, Value, reads
from redy.model import Array, Elementwise

FLOATS: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
}
"""ONNX element type -> numpy name, for the types in which networks compute."""

_SMALL = frozenset(["bool", "uint8", "int8"])
_EXACT: dict[str, frozenset[str]] = {
    "float64": _SMALL | {"uint16", "int16", "uint32", "int32", "bfloat16", "float16", "float32", "float64"},
    "float32": _SMALL | {"uint16", "int16", "bfloat16", "float16", "float32"},
    "float16": _SMALL | {"float16"},
    "bfloat16": _SMALL | {"bfloat16"},
}
"""Type -> the types all of whose numbers it has."""


def holds(wide: str, narrow: str) -> bool:
    """Whether every number of the type `narrow` is one of the floating-point type `wide`."""
    return narrow in _EXACT[wide]


def rounded(dtype: str) -> Callable[[Array], Array]:
    """Rounding to the nearest number of a floating-point type; beyond its range infinity, as ONNX casts."""
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)

    def evaluate(x: Array) -> Array:
        with np.errstate(over="ignore"):
            return np.asarray(x).astype(kind).astype(np.float64)

    return evaluate


@reads("Cast", "CastLike")
def read_cast(graph: Graph, op: Op) -> list[Tensor]:
    """The value itself where the new type has all numbers of the old one, else its rounding."""
    value = op.value()
    if op.kind == "Cast":
        to = FLOATS.get(op.attribute("to"))
    else:
        like = op.input(1)
        to = graph.types.get(str(op.node.input[1])) if isinstance(like, Value) else str(op.constant(1).dtype)
    if to not in _EXACT:
        raise Refused("a cast to a type that is not floating-point")
    return [narrowed(graph, op, value, graph.types.get(str(op.node.input[0]), to), to)]


def narrowed(graph: Graph, op: Op, value: Value, source: str, to: str) -> Value:
    """The value of type `source` as one of type `to`."""
    if holds(to, source):
        return value
    code = next(code for code, name in FLOATS.items() if name == to)
    node = Elementwise(graph.claim(op.output), value.name, value.shape, "Cast", {"to": code}, rounded(to))
    return graph.add(node, batched=value.batched)
