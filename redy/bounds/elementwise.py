"""Ranges of smooth activations: by monotonicity, or by the one valley the function has."""

from __future__ import annotations

from typing import Final

import numpy as np

from redy.bounds.result import Range
from redy.errors import Unsupported
from redy.model import Elementwise

SLACK: Final = 1e-12
"""Relative and absolute error granted to a float64 evaluation of the functions below (they are within some ulps)."""

INCREASING: Final = frozenset(
    [
        "Asinh",
        "Atan",
        "Ceil",
        "Celu",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Selu",
        "Sigmoid",
        "Sinh",
        "Softplus",
        "Softsign",
        "Tanh",
    ]
)
"""Non-decreasing on all real numbers for every attribute that ONNX allows and redy checks (alpha and gamma >= 0)."""

VALLEY: Final = {
    "Gelu": (-0.7518, -0.7517, -0.1700),
    "HardSwish": (-1.5, -1.5, -0.375),
    "Mish": (-1.1925, -1.1924, -0.3089),
    "Silu": (-1.2785, -1.2784, -0.2785),
    "Swish": (-1.2785, -1.2784, -0.2785),
}
"""Falling up to a lowest point, then rising: (just left of it, just right of it, a value below the lowest)."""


def elementwise_image(node: Elementwise, lower: np.ndarray, upper: np.ndarray) -> Range:
    """The range of the node's function on [lower, upper] (arrays of the node's shape), slack included.

    Raises:
        Unsupported: the function is not in the tables above, or an attribute makes it another function.
    """
    low, high = _evaluate(node, lower), _evaluate(node, upper)
    if node.operator == "Cast":
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise Unsupported(f"{node.name}: the cast to a narrower type may overflow; a proof needs a finite range")
        return low, high  # Rounding to nearest never decreases, and numpy rounds as it does.
    if node.operator in INCREASING and _alpha(node) >= 0 and node.attributes.get("gamma", 1.0) >= 0:
        return low - SLACK * (1 + np.abs(low)), high + SLACK * (1 + np.abs(high))
    if node.operator in VALLEY and _alpha(node) == 1 and node.attributes.get("approximate", "none") in ("none", 0, 0.0):
        left, right, lowest = VALLEY[node.operator]
        ends = np.minimum(low, high)
        least = np.where((lower < right) & (upper > left), np.minimum(ends, lowest), ends)
        most = np.maximum(low, high)
        return least - SLACK * (1 + np.abs(least)), most + SLACK * (1 + np.abs(most))
    if node.operator == "Reciprocal":
        sure = (lower > 0) | (upper < 0)
        least, most = np.where(sure, high, np.nan), np.where(sure, low, np.nan)
        return least - SLACK * np.abs(least), most + SLACK * np.abs(most)
    raise Unsupported(f"{node.name}: {node.operator} cannot be bounded; a proof needs its range")


def _alpha(node: Elementwise) -> float:
    return float(node.attributes.get("alpha", 1.0))


def _evaluate(node: Elementwise, x: np.ndarray) -> np.ndarray:
    """The function at finite points; an infinite end has no known value."""
    finite = np.isfinite(x)
    return np.where(finite, node.function(np.where(finite, x, 0.0)[None])[0], np.nan)
