r"""A network as a plain chain, Gemm, Relu, Gemm, ..., which optimisation tools and small runtimes read.

Layer l of the chain is one ReLU over every activation that has l - 1 others before it, and over whatever later layers
read from earlier ones:

* A piecewise-linear unit is a sum of ReLUs at its breakpoints t_1 <= ... <= t_k, with slopes s_0 ... s_k:
  f(x) = f(t_1) - s_0 relu(t_1 - x) + s_1 relu(x - t_1) + sum_{j>1} (s_j - s_{j-1}) relu(x - t_j).
* A value v that is read further on passes a layer as relu(v + c) - c with c >= -min v over the box, which is exact
  there; what a ReLU gave is not negative and passes as it is.

The input and the output of the result are vectors, whatever their shapes in the original.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from redy.errors import Unsupported
from redy.model import Activate, Affine, Array, Dense, Network, Node, Term
from redy.model.functions import relu
from redy.rewrite.constants import propagate_constants
from redy.rewrite.dead import drop_dead
from redy.rewrite.dense import LARGEST_MATRIX, Refusal, flat_function

ROOM = 1e-6
"""Relative and absolute room above the smallest shift, for the rounding of weights when they are written."""


@dataclass(frozen=True, slots=True)
class _Form:
    """A vector as an affine map of a layer's state: weight @ state + offset."""

    weight: Array
    offset: Array


@dataclass(frozen=True, slots=True)
class _Held:
    """How a value is read from the ReLU of a layer: rows `start` to `start + weight.shape[1]` of it."""

    start: int
    weight: Array
    offset: Array

    def over(self, size: int) -> _Form:
        """Over the whole state."""
        weight = np.zeros((len(self.offset), size))
        weight[:, self.start : self.start + self.weight.shape[1]] = self.weight
        return _Form(weight, self.offset)


Lowest = Callable[[Network, str], Array]
"""Of a network and the name of a value: a sound lower bound of every element of the value on the box."""


def chained(network: Network, lowest: Lowest) -> Network | Refusal:
    """The network as a chain of Gemm and Relu that computes the same wherever `lowest` holds.

    Args:
        network: of affine nodes and piecewise-linear activations, with one output.
        lowest: bounds of the values that pass a layer.
    """
    if len(network.outputs) != 1:
        return Refusal(f"the network has {len(network.outputs)} outputs; a chain has one")
    if network.head:
        return Refusal("the network ends in labels; a chain has one output of numbers")
    for node in network.nodes:
        if not isinstance(node, Affine | Activate):
            return Refusal(f"{node.name}: a chain of Gemm and Relu cannot hold this {type(node).__name__}")
        terms = node.terms if isinstance(node, Affine) else ()
        if any(math.prod(t.operator.in_shape) * math.prod(t.operator.out_shape) > LARGEST_MATRIX for t in terms):
            return Refusal(f"{node.name}: the matrix of a chain would be too large")
    try:
        return drop_dead(propagate_constants(_Chain(network, lowest).built()))[0]
    except Unsupported as error:
        return Refusal(str(error))


class _Chain:
    """The construction, layer by layer; `state` holds every value that can be read now."""

    def __init__(self, network: Network, lowest: Lowest) -> None:
        self.network, self.lowest = network, lowest
        self.output = network.outputs[0].name
        self.levels = _levels(network)
        self.last = self._last_uses()
        size = math.prod(network.input.shape)
        self.state = {network.input.name: _Form(np.eye(size), np.zeros(size))}
        self.size, self.source, self.nodes = size, network.input.name, list[Node]()

    def built(self) -> Network:
        """The chain."""
        for level in range(self.levels[self.output]):
            self._layer(level)
        form, port = self._form(self.output, {}), self.network.outputs[0]
        if self.nodes and np.array_equal(form.weight, np.eye(self.size)) and not form.offset.any():
            self.nodes[-1] = replace(self.nodes[-1], name=port.name)
        else:
            self.nodes.append(self._affine(port.name, form))
        source = self.network.input
        return replace(
            self.network,
            input=replace(source, shape=(math.prod(source.shape),), parts=()),
            nodes=tuple(self.nodes),
            outputs=(replace(port, shape=form.offset.shape),),
        )

    def _last_uses(self) -> dict[str, int]:
        """The last level at which each value is read; an activation reads before its own ReLU."""
        last = dict.fromkeys(self.levels, -1)
        for node in self.network.nodes:
            at = self.levels[node.name] - isinstance(node, Activate)
            for source in node.sources:
                last[source] = max(last[source], at)
        last[self.output] = self.levels[self.output]
        return last

    def _layer(self, level: int) -> None:
        """One affine node and its ReLU, with everything that is read behind it."""
        rows: list[_Form] = []
        held: dict[str, _Held] = {}
        seen: dict[str, _Form] = {}
        start = 0
        for name, own in self.levels.items():
            node = self.network.by_name.get(name)
            if isinstance(node, Activate) and own == level + 1:
                row, weight, offset = _unit(node, self._form(node.source, seen))
            elif own <= level < self.last[name]:
                form, shift = self._form(name, seen), self._shift(name)
                row, weight, offset = _Form(form.weight, form.offset + shift), np.eye(shift.size), -shift
            else:
                continue
            rows.append(row)
            held[name] = _Held(start, weight, offset)
            start += weight.shape[1]
        before, after = f"{self.output}.before_{level + 1}", f"{self.output}.layer_{level + 1}"
        weight = np.concatenate([np.zeros((0, self.size)), *(row.weight for row in rows)])
        offset = np.concatenate([np.zeros(0), *(row.offset for row in rows)])
        self.nodes += [self._affine(before, _Form(weight, offset)), Activate(after, before, relu(), (start,))]
        self.size, self.source = start, after
        self.state = {name: entry.over(start) for name, entry in held.items()}

    def _affine(self, name: str, form: _Form) -> Affine:
        return Affine(name, (Term(self.source, Dense.of(form.weight)),), form.offset)

    def _form(self, name: str, seen: dict[str, _Form]) -> _Form:
        """A value over the state."""
        if name in self.state:
            return self.state[name]
        if name not in seen:
            node = self.network.by_name[name]
            assert isinstance(node, Affine)  # every activation of this level is in the state
            weight, offset = np.zeros((node.bias.size, self.size)), node.bias.ravel().copy()
            for term in node.terms:
                matrix, inner = term.operator.matrix(), self._form(term.source, seen)
                weight += matrix @ inner.weight
                offset += matrix @ inner.offset
            seen[name] = _Form(weight, offset)
        return seen[name]

    def _shift(self, name: str) -> Array:
        """What makes a value positive on the box, so that it passes a ReLU."""
        least = self._least(name).ravel()
        if not np.isfinite(least).all():
            raise Unsupported(f"{name}: it has no finite bound, so a chain cannot carry it")
        return np.where(least >= 0, 0.0, -least + ROOM * (1.0 + np.abs(least)))

    def _least(self, name: str) -> Array:
        node = self.network.by_name.get(name)
        if isinstance(node, Activate) and node.function.is_relu:
            return np.zeros(node.shape)
        return self.lowest(self.network, name)


def _levels(network: Network) -> dict[str, int]:
    """How many activations stand before each value, itself included, on the longest way from the input."""
    levels = {network.input.name: 0}
    for node in network.nodes:
        levels[node.name] = max((levels[s] for s in node.sources), default=0) + isinstance(node, Activate)
    return levels


def _unit(node: Activate, z: _Form) -> tuple[_Form, Array, Array]:
    """Rows under a ReLU, and weight and offset that make the activation's values of them."""
    function = flat_function(node)
    slopes, breakpoints = function.slopes, function.breakpoints
    jumps = [(-1.0, breakpoints[0], -slopes[0]), (1.0, breakpoints[0], slopes[1])]
    jumps += [
        (1.0, t, after - before) for t, before, after in zip(breakpoints[1:], slopes[1:-1], slopes[2:], strict=True)
    ]
    rows, offsets, weights = [], [], []
    for sign, at, factor in jumps:
        used = np.flatnonzero(factor)
        rows.append(sign * z.weight[used])
        offsets.append(sign * (z.offset - at)[used])
        weights.append(np.diag(factor)[:, used])
    return _Form(np.concatenate(rows), np.concatenate(offsets)), np.concatenate(weights, axis=1), function.value
