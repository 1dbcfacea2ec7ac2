"""The ONNX reference implementation, node by node: constants, element numbers, and operators that are carried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, TypeProto, helper

from redy.formats.reading.graph import Refused

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator

WRONG = frozenset({"Conv"})
"""What the reference implementation computes wrongly: Conv with strides and pads (onnx 1.23)."""


def run_node(node: NodeProto, inputs: Sequence[object], opsets: Mapping[str, int]) -> list[np.ndarray]:
    """The outputs of one node for constant inputs (None where one is left out).

    Raises:
        Refused: the reference implementation cannot evaluate it.
    """
    if node.op_type in WRONG:
        raise Refused(f"the reference implementation of {node.op_type} is not reliable")
    named = {str(name): value for name, value in zip(node.input, inputs, strict=True) if name and value is not None}
    try:
        with np.errstate(all="ignore"):
            results = evaluator(node, list(named), opsets).run(None, named)
    except Exception as error:  # The reference implementation raises many kinds of errors for what it cannot do.
        raise Refused(str(error) or type(error).__name__) from error
    found = iter(results)
    return [next(found) if name else np.empty(0) for name in node.output]


def evaluator(node: NodeProto, names: Sequence[str], opsets: Mapping[str, int]) -> ReferenceEvaluator:
    """An evaluator of one node whose inputs are `names`."""
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - it loads slowly, and few models need it

    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_value_info(name, TypeProto()) for name in names],
        [helper.make_value_info(name, TypeProto()) for name in node.output if name],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=imports))
