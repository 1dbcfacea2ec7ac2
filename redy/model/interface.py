"""A network whose input and output are vectors, with the shapes of another one that means the same elements."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from redy.model.network import Affine, Network, Node, Port, Term
from redy.model.operators import Gather


def with_shapes_of(network: Network, other: Network) -> Network:
    """The network with the shapes of another one's input and outputs, element by element in the order of memory.

    Where shapes agree, or do not hold equally many elements, it is given back as it is.
    """
    return _outputs(_input(network, other.input), other.outputs)


def _input(network: Network, port: Port) -> Network:
    own = network.input
    if own.shape == port.shape or math.prod(own.shape) != math.prod(port.shape):
        return network
    first = _reshaped(own.name, f"{own.name}.shaped", port.shape, own.shape)
    shaped = replace(own, name=f"{own.name}.shaped", shape=port.shape, parts=port.parts)
    return replace(network, input=shaped, nodes=(first, *network.nodes))


def _outputs(network: Network, ports: tuple[Port, ...]) -> Network:
    if len(network.outputs) != len(ports):
        return network
    for own, port in zip(network.outputs, ports, strict=True):
        node = network.by_name.get(own.name)
        fits = math.prod(own.shape) == math.prod(port.shape) and own.shape != port.shape
        if not fits or node is None or network.readers[own.name]:
            continue
        inner = f"{own.name}.flat"
        nodes: list[Node] = [replace(n, name=inner) if n is node else n for n in network.nodes]
        nodes.append(_reshaped(own.name, inner, own.shape, port.shape))
        outputs = tuple(replace(o, shape=port.shape) if o is own else o for o in network.outputs)
        network = replace(network, nodes=tuple(nodes), outputs=outputs)
    return network


def _reshaped(name: str, source: str, first: tuple[int, ...], second: tuple[int, ...]) -> Affine:
    """A node that reads `source`, of shape `first`, and has the shape `second`."""
    index = np.arange(math.prod(second)).reshape(second)
    return Affine(name, (Term(source, Gather(index, first)),), np.zeros(second))
