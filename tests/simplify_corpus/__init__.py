"""Pruned models made by script, with the cost of an ideal removal known from their making.

`ARCHITECTURES` are sixteen published networks with their real layer structure, `PATTERNS` small
models with one difficulty each. Only numpy and onnx are needed to build them.
"""

from __future__ import annotations

from . import patterns_conv, patterns_graph, patterns_moves, patterns_values, patterns_walls
from .architectures import ARCHITECTURES
from .builder import Built, Pruning
from .registry import PATTERNS, Pattern
from .shaping import Net

OPSETS = {"mobilenet_v3": 13, "vit_tiny": 18, "googlenet": 11, "shufflenet_v2": 12, "mlp": 20}


def architecture(
    name: str, *, ratio: float = 0.5, kind: str = "zero", width: float = 0.25, size: int = 32,
    seed: int = 1, opset: int | None = None, fused: bool | None = None,
) -> Built:  # fmt: skip
    """One of the sixteen, pruned; by default exported with BatchNorm fused at ratio 0.8 only."""
    fused = ratio > 0.6 if fused is None else fused
    net = Net(Pruning(ratio, kind, seed), opset=opset or OPSETS.get(name, 17), fused=fused)
    ARCHITECTURES[name](net, width, size)
    return net.build()


__all__ = [
    "ARCHITECTURES", "PATTERNS", "Built", "Net", "Pattern", "Pruning", "architecture",
    "patterns_conv", "patterns_graph", "patterns_moves", "patterns_values", "patterns_walls",
]  # fmt: skip
