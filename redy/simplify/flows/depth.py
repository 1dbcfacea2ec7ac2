"""DepthToSpace (PixelShuffle) and SpaceToDepth: channels become positions and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.facts import Facts
from redy.simplify.flow import Flow
from redy.simplify.graph import Graph, get_int, get_string


class DepthToSpace(Flow):
    """blocksize^2 input channels make one output channel: they stay or go together."""

    def __init__(self, node: ir.Node) -> None:
        self.area = get_int(node, "blocksize", 1) ** 2
        self.crd = get_string(node, "mode", "DCR") == "CRD"

    def split(self, array: np.ndarray) -> np.ndarray:
        """(area, outputs) from an array with one entry per input channel."""
        return array.reshape(-1, self.area).T if self.crd else array.reshape(self.area, -1)

    def join(self, array: np.ndarray) -> np.ndarray:
        return np.tile(array, (self.area, 1)).T.ravel() if self.crd else np.tile(array, self.area)

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        atoms = a.only_along(x, [1])
        if atoms.size == 1:
            a.pin(x)
            a.opaque(y)
            return
        split = self.split(atoms.ravel())
        a.tie(split[:1], split)
        a.atoms[y] = split[0].reshape(1, -1, 1, 1)

    def forward(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        facts = a.facts[x].over([1])
        if facts.known.size == 1 or not facts.uniform:
            return
        known, values = self.split(facts.known.ravel()), self.split(facts.values().ravel())
        same = known.all(axis=0) & (values == values[:1]).all(axis=0)
        shape = a.atoms[y].shape
        a.facts[y] = Facts.of(same.reshape(shape), values[0].reshape(shape), Facts.nothing(shape).axes)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        need = (a.needs[y] & ~a.absorbed(y)).ravel()
        if need.any():
            a.demand(x, self.join(need).reshape(1, -1, 1, 1) if a.needs[x].shape[1] > 1 else np.ones(1, dtype=bool))


class SpaceToDepth(Flow):
    """One input channel makes blocksize^2 output channels."""

    def __init__(self, node: ir.Node) -> None:
        self.area = get_int(node, "blocksize", 1) ** 2

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        atoms = a.only_along(x, [1])
        if atoms.size == 1:
            a.pin(x)
            a.opaque(y)
            return
        a.atoms[y] = np.tile(atoms, (1, self.area, 1, 1))

    def forward(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        facts = a.facts[x].over([1])
        if facts.known.size > 1 and facts.uniform:
            table = np.tile(facts.table, (1, self.area, 1, 1))
            a.facts[y] = Facts.of(np.tile(facts.known, (1, self.area, 1, 1)), table, facts.axes)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        need = (a.needs[y] & ~a.absorbed(y)).ravel()
        if need.any():
            mask = need.reshape(self.area, -1).any(axis=0) if a.needs[x].shape[1] > 1 else np.ones(1, dtype=bool)
            a.demand(x, mask.reshape(1, -1, 1, 1))


RULES: dict[str, Callable[[ir.Node, Graph], Flow | str]] = {
    "DepthToSpace": lambda node, _: DepthToSpace(node),
    "SpaceToDepth": lambda node, _: SpaceToDepth(node),
}
