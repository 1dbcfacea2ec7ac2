"""Pad in front of a Conv (value 0) or a MaxPool (value minus infinity) becomes the reader's own padding.

pads' = pads of the reader + pads of the Pad, on the spatial axes. A MaxPool's padding must stay below its kernel size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from redy.simplify.flows import flow_of
from redy.simplify.flows.padding import Pad
from redy.simplify.graph import Graph, dims, get_int, get_ints, get_string, is_standard

_MINUS_INFINITY = float(np.finfo(np.float32).min)


def merge_padding(graph: Graph, allow: Callable[[str, str], bool]) -> int:
    """Merge where only one reader is behind the Pad; returns how many."""
    merged = 0
    for node in graph.nodes():
        flow = flow_of(node, graph) if node.op_type == "Pad" else None
        if not isinstance(flow, Pad) or flow.value is None:
            continue
        reader = graph.sole_reader(node.outputs[0])
        if reader is None or not is_standard(reader) or reader.inputs[0] is not node.outputs[0]:
            continue
        pads = _joint(reader, flow)
        if pads is None or not allow("merge_padding", node.name or node.outputs[0].name or ""):
            continue
        reader.attributes["pads"] = ir.AttrInt64s("pads", pads)
        reader.replace_input_with(0, node.inputs[0])
        graph.remove([node])
        merged += 1
    return merged


def _joint(reader: ir.Node, pad: Pad) -> list[int] | None:
    """The pads of the reader with those of the Pad on top; None where they cannot be merged."""
    assert pad.value is not None
    right = {"Conv": pad.value == 0, "MaxPool": pad.value <= _MINUS_INFINITY}.get(reader.op_type, False)
    if not right or get_string(reader, "auto_pad", "NOTSET") not in ("NOTSET", "VALID") or len(reader.outputs) > 1:
        return None
    rank = len(pad.begin) - 2
    if any(pad.begin[:2]) or any(pad.end[:2]) or min(*pad.begin, *pad.end) < 0:
        return None
    own = get_ints(reader, "pads", [0] * (2 * rank))
    joint = [a + b for a, b in zip(own, [*pad.begin[2:], *pad.end[2:]], strict=True)]
    if reader.op_type == "MaxPool":
        kernel = get_ints(reader, "kernel_shape", [])
        if get_int(reader, "ceil_mode", 0) or any(p >= k for p, k in zip(joint, kernel * 2, strict=True)):
            return None
    if get_string(reader, "auto_pad", "NOTSET") == "VALID":
        reader.attributes.pop("auto_pad")
    return joint if dims(reader.outputs[0]) is not None else None
