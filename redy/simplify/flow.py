"""What one kind of operator says about the channels that flow through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from redy.simplify.analysis import Analysis
    from redy.simplify.take import Take


class Flow:
    """The rule of one operator; the methods are called in the order in which they stand here."""

    may_lose_inputs = False  # whether it can go on without an input of which no channel is left
    owns_atoms = False  # whether the outputs have channels of their own (a layer), rather than those of an input

    def layout(self, node: ir.Node, a: Analysis) -> None:
        """Give each output its atoms; tie and pin."""
        raise NotImplementedError

    def forward(self, node: ir.Node, a: Analysis) -> None:
        """Set the facts of the outputs; leaving them out means that nothing is known."""

    def backward(self, node: ir.Node, a: Analysis) -> None:
        """Demand what the outputs that are needed need of the inputs."""
        raise NotImplementedError

    def close(self, node: ir.Node, a: Analysis) -> None:
        """Revive atoms where what would stay is not something the operator can express."""

    def take(self, node: ir.Node, t: Take) -> None:
        """Rewrite the node for the channels that stay."""


class Wall(Flow):
    """An operator nothing is known about: it needs all of its inputs as they are."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def layout(self, node: ir.Node, a: Analysis) -> None:
        for value in node.inputs:
            a.pin(value)
        for value in node.outputs:
            a.opaque(value)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        for value in node.inputs:
            a.demand_all(value)


class Along(Flow):
    """Channels pass one by one: output channel i depends on input channel i, on whatever axes have labels."""

    data_inputs = 1

    def layout(self, node: ir.Node, a: Analysis) -> None:
        value = node.inputs[0]
        assert value is not None
        atoms = self.view(node, value, a)
        for out in node.outputs:
            if a.rank(out) == atoms.ndim:
                a.atoms[out] = atoms
            else:
                a.opaque(out)

    def view(self, node: ir.Node, value: ir.Value, a: Analysis) -> np.ndarray:  # noqa: ARG002 - one signature for all
        return a.atoms[value]

    def backward(self, node: ir.Node, a: Analysis) -> None:
        value = node.inputs[0]
        assert value is not None
        for out in node.outputs:
            need = a.needs[out] & ~a.absorbed(out)
            if need.any():
                a.demand(value, need)
