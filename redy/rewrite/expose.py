"""Values that the rewrites may choose the form of, apart from those that they must leave as they are.

What an operator other than a matrix reads has its shape and all its elements. A copy in front of it, an affine node
that selects every unit, takes that over: the activation itself is then read by matrices alone and can be folded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from redy.model import Activate, Affine, Array, Gather, Network, Node, Operator, Scale, Shape, Term, identity
from redy.model.compose import redirected
from redy.rewrite.dense import dense_affine, flat_function, is_vector, lines_of, rebuilt, unused


def exposed_name(name: str) -> str:
    """The name of the activation behind an output that was an activation."""
    return f"{name}_units"


def exposed(network: Network) -> Network:
    """The network with copies of activations with lines in front of outputs and of readers that are no matrices."""
    outputs = {port.name for port in network.outputs}
    nodes: list[Node] = []
    copies: dict[str, str] = {}
    taken = set(network.shapes)
    for before in network.nodes:
        node = before if dense_affine(before) else redirected(before, copies)
        if not isinstance(node, Activate) or not _foldable(node, network):
            nodes.append(node)
        elif node.name in outputs:
            inner = exposed_name(node.name)
            nodes.append(replace(node, name=inner))
            nodes.append(_copy(node.name, inner, node.shape))
        elif any(not dense_affine(reader) for reader in network.readers[node.name]):
            copies[node.name] = unused(f"{node.name}_read", taken)
            nodes.extend((node, _copy(copies[node.name], node.name, node.shape)))
        else:
            nodes.append(node)
    return rebuilt(network, nodes)


def _copy(name: str, source: str, shape: Shape) -> Affine:
    return Affine(name, (Term(source, identity(shape)),), np.zeros(shape))


def _foldable(node: Activate, network: Network) -> bool:
    """Whether some of its units are lines, behind matrices."""
    source = network.by_name.get(node.source)
    if source is None or not is_vector(node.shape) or not dense_affine(source):
        return False
    return bool(lines_of(flat_function(node))[0].any())


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """A selection or a diagonal that stays what it is: to the rewrites it is no matrix."""

    operator: Operator

    @property
    def in_shape(self) -> Shape:
        """The shape it takes."""
        return self.operator.in_shape

    @property
    def out_shape(self) -> Shape:
        """The shape it gives."""
        return self.operator.out_shape

    @property
    def macs(self) -> int:
        """Multiply-adds of one application."""
        return self.operator.macs

    @property
    def parameters(self) -> int:
        """Stored weights."""
        return self.operator.parameters

    @property
    def fan_in(self) -> int:
        """Products per output."""
        return self.operator.fan_in

    def apply(self, x: Array) -> Array:
        """W x."""
        return self.operator.apply(x)

    def spread(self, radius: Array) -> Array:
        """|W| r."""
        return self.operator.spread(radius)

    def adjoint(self, form: Array) -> Array:
        """W^T c."""
        return self.operator.adjoint(form)

    def adjoint_spread(self, form: Array) -> Array:
        """|W|^T |c|."""
        return self.operator.adjoint_spread(form)

    def matrix(self) -> Array:
        """The map as a matrix."""
        return self.operator.matrix()


def opaque(network: Network) -> Network:
    """The network with nodes that only select and scale elements as they are: no rewrite makes matrices of them.

    Those in front of activations are left, for the units of these are to be folded.
    """
    nodes: list[Node] = []
    for node in network.nodes:
        before = any(isinstance(reader, Activate) for reader in network.readers[node.name])
        if isinstance(node, Affine) and not before and _moves(node):
            hidden = tuple(Term(term.source, Opaque(term.operator)) for term in node.terms)
            nodes.append(Affine(node.name, hidden, node.bias))
        else:
            nodes.append(node)
    return (
        network if all(a is b for a, b in zip(nodes, network.nodes, strict=True)) else exposed(rebuilt(network, nodes))
    )


def _moves(node: Affine) -> bool:
    return bool(node.terms) and all(isinstance(term.operator, Gather | Scale) for term in node.terms)


def transparent(network: Network) -> Network:
    """The network with the operators that `opaque` hid."""
    nodes: list[Node] = []
    for node in network.nodes:
        if isinstance(node, Affine) and any(isinstance(term.operator, Opaque) for term in node.terms):
            terms = (Term(t.source, t.operator.operator) if isinstance(t.operator, Opaque) else t for t in node.terms)
            nodes.append(Affine(node.name, tuple(terms), node.bias))
        else:
            nodes.append(node)
    return rebuilt(network, nodes)
