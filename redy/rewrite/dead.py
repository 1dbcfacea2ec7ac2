"""Units that no output needs are dropped, from the back to the front.

An element of a value is needed if a needed element of some reader depends on it. What an operator lets go is counted
in its own units: a matrix any elements, a convolution whole channels, a matrix at every position whole features.
Values that are joined element by element (an activation and its source, the two sides of a gate or of a residual sum)
keep the same elements. Outputs, the input, and whatever a carried node reads or computes are kept whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from redy.model import (
    Activate,
    Affine,
    Dense,
    Elementwise,
    Foreign,
    Gather,
    MaxPool,
    Network,
    Node,
    Operator,
    Positionwise,
    Product,
    Scale,
    Shape,
    Term,
)
from redy.model.convolution import AveragePool, Conv, ConvTranspose
from redy.rewrite.columns import Mask, reaching, restricted
from redy.rewrite.dense import flat_function, is_vector, rebuilt, shared_if_equal

Kept = dict[str, NDArray[np.int64]]
"""Value name -> the indices (flattened) of the elements that stay, ascending."""

_ANY, _CHANNELS, _FEATURES = "any", "channels", "features"
"""What a value may lose: any elements (it becomes a vector), entries of its first axis, entries of its last axis."""


def drop_dead(network: Network) -> tuple[Network, Kept]:
    """The network without the units and nodes that no output needs, and what stayed of every remaining value."""
    needed = _Needs(network).needed()
    kept = {name: np.flatnonzero(mask) for name, mask in needed.masks.items() if mask.any()}
    nodes = [_restricted(node, kept, needed, network) for node in network.nodes if node.name in kept]
    return rebuilt(network, nodes), kept


@dataclass(slots=True)
class _Needs:
    """Which elements are needed, and in which units values lose elements."""

    network: Network
    masks: dict[str, Mask] = field(default_factory=dict)
    leader: dict[str, str] = field(default_factory=dict)
    units: dict[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        network = self.network
        self.leader = {name: name for name in network.shapes}
        for node in network.nodes:
            for source in _joined(node):
                self.leader[self._of(source)] = self._of(node.name)
        every = frozenset({_ANY, _CHANNELS, _FEATURES})
        self.units = {self._of(name): every for name in network.shapes}
        for name in (network.input.name, *(port.name for port in network.outputs)):
            self._allow(name, frozenset())
        for node in network.nodes:
            for name, allowed in _allowed(node):
                self._allow(name, allowed)

    def _of(self, name: str) -> str:
        while self.leader[name] != name:
            name = self.leader[name]
        return name

    def _allow(self, name: str, allowed: frozenset[str]) -> None:
        self.units[self._of(name)] &= allowed

    def shape(self, name: str, left: int) -> Shape:
        """The shape of a value of which so many elements are left."""
        shape = self.network.shapes[name]
        if left == math.prod(shape):
            return shape
        units = self.units[self._of(name)]
        if _ANY in units:
            return (left,)
        if _CHANNELS in units:
            return (left // math.prod(shape[1:]), *shape[1:])
        return (*shape[:-1], left // math.prod(shape[:-1]))

    def needed(self) -> _Needs:
        """Fill the masks: from the back, until values that are joined need the same."""
        network = self.network
        self.masks = _outputs_only(network)
        while True:
            before = sum(int(mask.sum()) for mask in self.masks.values())
            for node in reversed(network.nodes):
                _need(node, self._whole_units(node.name), self.masks)
            self._join()
            if sum(int(mask.sum()) for mask in self.masks.values()) == before:
                break
        self.masks[network.input.name][:] = True
        return self

    def _whole_units(self, name: str) -> Mask:
        """The needed elements with those of the same unit."""
        mask, shape, units = self.masks[name], self.network.shapes[name], self.units[self._of(name)]
        if not mask.any() or _ANY in units or mask.all():
            return mask
        if _CHANNELS in units and shape:
            mask[:] = np.repeat(mask.reshape(shape[0], -1).any(axis=1), mask.size // shape[0])
        elif _FEATURES in units and shape:
            mask[:] = np.tile(mask.reshape(-1, shape[-1]).any(axis=0), mask.size // shape[-1])
        else:
            mask[:] = True
        return mask

    def _join(self) -> None:
        """Joined values need the same units (channels, where their positions differ); those nobody reads need none."""
        shared: dict[str, Mask] = {}
        for name, mask in self.masks.items():
            if mask.any():
                units = self._per_unit(name)
                leader = self._of(name)
                shared[leader] = shared[leader] | units if leader in shared else units
        for name, mask in self.masks.items():
            if mask.any():
                units = shared[self._of(name)]
                self.masks[name] = mask | np.repeat(units, mask.size // units.size)

    def _per_unit(self, name: str) -> Mask:
        """Which of the entries that all joined values share are needed: all elements, channels, or the whole value."""
        mask, shape, units = self._whole_units(name), self.network.shapes[name], self.units[self._of(name)]
        if _ANY in units or (_FEATURES in units and _CHANNELS not in units):
            return mask
        return np.asarray(mask.reshape(shape[0] if _CHANNELS in units else 1, -1).any(axis=1))


def needed_elements(network: Network) -> dict[str, Mask]:
    """Which elements of every value (flattened) some output depends on, whatever units operators work in."""
    masks = _outputs_only(network)
    for node in reversed(network.nodes):
        _need(node, masks[node.name], masks)
    return masks


def _outputs_only(network: Network) -> dict[str, Mask]:
    masks = {name: np.zeros(math.prod(shape), dtype=bool) for name, shape in network.shapes.items()}
    for port in network.outputs:
        masks[port.name][:] = True
    return masks


def _need(node: Node, mask: Mask, masks: dict[str, Mask]) -> None:
    """Add what the needed elements of a node need of its sources."""
    if not mask.any():
        return
    if isinstance(node, Affine):
        for term in node.terms:
            masks[term.source] |= reaching(term.operator, mask)
    elif isinstance(node, MaxPool):
        places = node.index.reshape(mask.size, -1)[mask]
        masks[node.source][places[places >= 0]] = True
    elif isinstance(node, Foreign):
        for source in node.sources:
            masks[source][:] = True
    else:
        for source in node.sources:
            masks[source] |= mask


def _joined(node: Node) -> tuple[str, ...]:
    """The sources of which the node keeps the same units as of itself."""
    if isinstance(node, Foreign):
        return ()
    if isinstance(node, Affine):
        return tuple(term.source for term in node.terms if _joins(term.operator))
    return node.sources


def _joins(operator: Operator) -> bool:
    return isinstance(operator, Scale | AveragePool) or (isinstance(operator, Conv) and operator.groups > 1)


def _allowed(node: Node) -> list[tuple[str, frozenset[str]]]:
    """What a node lets its own value and its sources lose."""
    if isinstance(node, Foreign):
        return [(name, frozenset()) for name in (node.name, *node.sources)]
    if isinstance(node, MaxPool):
        return [(node.name, frozenset({_CHANNELS}))]
    if not isinstance(node, Affine):
        return []
    return [(name, _units_of(term.operator)) for term in node.terms for name in (node.name, term.source)]


def _units_of(operator: Operator) -> frozenset[str]:
    """In which units the operator lets its source and its result lose elements."""
    if isinstance(operator, Dense | Gather | Scale):
        return frozenset({_ANY, _CHANNELS, _FEATURES})
    if isinstance(operator, Positionwise):
        return frozenset({_FEATURES})
    if isinstance(operator, AveragePool):
        return frozenset({_CHANNELS})
    if isinstance(operator, Conv):
        each = operator.groups == operator.channels == operator.weight.shape[0]
        return frozenset({_CHANNELS}) if operator.groups == 1 or each else frozenset()
    if isinstance(operator, ConvTranspose):
        return frozenset({_CHANNELS}) if operator.conv.groups == 1 else frozenset()
    return frozenset()


def _restricted(node: Node, kept: Kept, needs: _Needs, network: Network) -> Node:
    rows, names = kept[node.name], (node.name, *node.sources)
    if all(name not in kept or kept[name].size == math.prod(network.shapes[name]) for name in names):
        gone = isinstance(node, Affine) and any(source not in kept for source in node.sources)
        if not gone:
            return node
    shape = needs.shape(node.name, rows.size)
    if isinstance(node, Affine):
        terms: list[Term] = []
        for term in node.terms:
            if term.source not in kept:
                continue
            columns = kept[term.source]
            shapes = needs.shape(term.source, columns.size), shape
            operator = restricted(term.operator, rows, columns, shapes)
            if not isinstance(operator, Dense) or operator.weight.any():
                terms.append(Term(term.source, operator))
        return Affine(node.name, tuple(terms), node.bias.ravel()[rows].reshape(shape))
    if isinstance(node, Activate):
        return _activation(node, rows, shape)
    if isinstance(node, Elementwise | Product):
        return replace(node, shape=shape)
    if isinstance(node, MaxPool):
        place = np.full(math.prod(network.shapes[node.source]) + 1, -1)
        place[kept[node.source]] = np.arange(kept[node.source].size)
        index = place[node.index.reshape(-1, node.index.shape[-1])[rows]].reshape(*shape, -1)
        return replace(node, shape=shape, index=index)
    return node


def _activation(node: Activate, rows: NDArray[np.int64], shape: Shape) -> Activate:
    if node.function.shape == ():
        return replace(node, shape=shape)
    function = flat_function(node).restricted(rows)
    if not is_vector(shape):
        function = shared_if_equal(function)
        function = function if function.shape == () else function.restricted(np.arange(rows.size).reshape(shape))
    return Activate(node.name, node.source, function, shape)
