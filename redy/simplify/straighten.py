"""Activations proved linear: y = a x + b on every channel takes the activation's place.

The affine node is then fused into the layer before or behind it like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redy.simplify.graph import Graph, dims, input_of


@dataclass(frozen=True)
class ChannelFinding:
    """Facts about the output of an activation, proved elsewhere, per channel along `axis`.

    `constant`: the number the channel always holds, NaN where it varies. `slope`, `intercept`: the line that the
    activation is on the channel, NaN where it is none. Missing arrays mean NaN everywhere.
    """

    constant: NDArray[np.float64]
    slope: NDArray[np.float64] | None = None
    intercept: NDArray[np.float64] | None = None
    axis: int = 1

    @staticmethod
    def lines(slope: Sequence[float], intercept: Sequence[float], axis: int = 1) -> ChannelFinding:
        """From one line per channel; slope 0 is a constant, NaN is no finding."""
        a, b = np.asarray(slope, dtype=np.float64), np.asarray(intercept, dtype=np.float64)
        return ChannelFinding(np.where(a == 0, b, np.nan), a, b, axis)


def straighten(graph: Graph, findings: Mapping[str, ChannelFinding], allow: Callable[[str, str], bool]) -> int:
    """Replace activations that are a line on each channel; constant channels count as lines of slope 0."""
    replaced = 0
    for node in graph.nodes():
        if len(node.outputs) != 1:
            continue
        y, x = node.outputs[0], input_of(node, 0)
        finding = findings.get(y.name or "")
        shape = dims(y)
        if finding is None or finding.slope is None or finding.intercept is None or x is None or shape is None:
            continue
        constant = np.isfinite(finding.constant)
        slope = np.where(constant, 0.0, finding.slope)
        shift = np.where(constant, finding.constant, finding.intercept)
        if not (np.isfinite(slope) & np.isfinite(shift)).all() or not allow("straighten", y.name or ""):
            continue
        view = [len(slope) if i == finding.axis % len(shape) else 1 for i in range(len(shape))]
        assert y.dtype is not None
        current = x
        if (slope != 1).any():
            factor = graph.add_constant(f"{y.name}_slope", slope.reshape(view), y.dtype)
            current = graph.add_node(
                "Mul", [current, factor], node, stem=f"{y.name}_scaled", shape=shape, dtype=y.dtype
            )
        if shift.any():
            term = graph.add_constant(f"{y.name}_shift", shift.reshape(view), y.dtype)
            current = graph.add_node("Add", [current, term], node, stem=f"{y.name}_line", shape=shape, dtype=y.dtype)
        graph.replace(y, current)
        graph.remove([node])
        replaced += 1
    return replaced
