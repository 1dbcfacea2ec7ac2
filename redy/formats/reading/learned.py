"""Operators of the domain ai.onnx.ml, in which classical preprocessing is exported."""

from __future__ import annotations

import numpy as np

from redy.formats.reading.casts import narrowed
from redy.formats.reading.graph import Graph, Op, Refused, Tensor, reads
from redy.model import Scale


@reads("ai.onnx.ml::Scaler")
def read_scaler(graph: Graph, op: Op) -> list[Tensor]:
    """z = (x - offset) * scale along the last axis, in float32."""
    value = op.value()
    if not value.shape:
        raise Refused("a scaler without a feature axis")
    given = {"offset": op.attribute("offset", [0.0]), "scale": op.attribute("scale", [1.0])}
    offset, scale = (op.finite(np.asarray(numbers)) for numbers in given.values())
    if any(numbers.size not in {1, value.shape[-1]} for numbers in (offset, scale)):
        raise Refused("an offset or a scale of another length than the input")
    value = narrowed(graph, op, value, graph.types.get(str(op.node.input[0]), "float32"), "float32")
    factor = np.broadcast_to(scale, value.shape)
    return [graph.affine(op.output, [(value, Scale(factor))], -offset * scale, batched=value.batched)]
