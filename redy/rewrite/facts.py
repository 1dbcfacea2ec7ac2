"""What is known on a box beyond findings about units: fixed inputs, and the pieces in which single elements stay.

A unit of an image is a whole channel. Elements of a channel that stay in pieces of their own have no finding, but what
reads them one by one, such as a dense layer behind a Flatten, can use their lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redy.model import Activate, Affine, Box, Network, Node, PiecewiseLinear, Scale, Term, identity
from redy.rewrite.dead import Kept
from redy.rewrite.dense import flat_function, is_vector, lines_of, rebuilt, shared_if_equal


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What holds on the box.

    Attributes:
        box: the inputs.
        pieces: `Activate` name -> per element (flattened) the piece in which it was proved to stay, or -1.
    """

    box: Box
    pieces: Mapping[str, NDArray[np.int64]]

    @property
    def nothing(self) -> bool:
        """True if no input is fixed and no element is known to stay."""
        fixed = (self.box.lower == self.box.upper).any()
        return not (fixed or any((pieces >= 0).any() for pieces in self.pieces.values()))


def with_pieces(network: Network, pieces: Mapping[str, NDArray[np.int64]]) -> Network:
    """The network with the line of its piece in place of the function of every element of an image that stays in one.

    Vectors are left alone: their units have findings.
    """
    nodes: list[Node] = []
    for node in network.nodes:
        known = pieces.get(node.name)
        if isinstance(node, Activate) and not is_vector(node.shape) and known is not None and (known >= 0).any():
            nodes.append(_with_lines(node, np.asarray(known)))
        else:
            nodes.append(node)
    return rebuilt(network, nodes)


def _with_lines(node: Activate, pieces: NDArray[np.int64]) -> Activate:
    function = flat_function(node)
    breakpoints, slopes, value = function.breakpoints.copy(), function.slopes.copy(), function.value.copy()
    places = np.flatnonzero(pieces >= 0)
    intercepts = function.intercepts()[pieces[places], places]
    slopes[:, places] = slopes[pieces[places], places]
    breakpoints[:, places], value[places] = 0.0, intercepts
    k = function.pieces
    shape = node.shape
    lines = PiecewiseLinear(breakpoints.reshape(k - 1, *shape), slopes.reshape(k, *shape), value.reshape(shape))
    return Activate(node.name, node.source, lines, shape)


def straightened(network: Network) -> Network:
    """Activations of images all of whose elements are lines as diagonal matrices, which can be composed."""
    nodes: list[Node] = []
    for node in network.nodes:
        if isinstance(node, Activate) and not is_vector(node.shape):
            is_line, slope, intercept = lines_of(flat_function(node))
            if is_line.all():
                operator = identity(node.shape) if (slope == 1).all() else Scale(slope.reshape(node.shape))
                nodes.append(Affine(node.name, (Term(node.source, operator),), intercept.reshape(node.shape)))
                continue
        nodes.append(node)
    return rebuilt(network, nodes)


def restored(network: Network, original: Network, origin: Kept) -> Network:
    """The network with the functions that elements of images had before their lines, which are equal on the box.

    Args:
        network: made from the original; units may be gone.
        original: without lines.
        origin: activation -> which elements (flattened) of the original stand in it.
    """
    own = {node.name: node for node in original.activations if not is_vector(node.shape)}
    nodes: list[Node] = []
    for node in network.nodes:
        before, index = own.get(node.name), origin.get(node.name)
        size = int(np.prod(node.shape))
        straight = isinstance(node, Affine) and len(node.terms) == 1 and isinstance(node.terms[0].operator, Scale)
        if before is None or index is None or index.size != size or not (isinstance(node, Activate) or straight):
            nodes.append(node)
            continue
        function = before.function
        if function.shape != ():
            function = shared_if_equal(flat_function(before).restricted(index))
        if function.shape != ():
            function = function.restricted(np.arange(size).reshape(node.shape))
        nodes.append(Activate(node.name, node.sources[0], function, node.shape))
    return rebuilt(network, nodes)
