"""A network as dense layers of ReLUs in float32, for searches whose findings are proved elsewhere in float64.

The pre-activation of layer t is b + sum over earlier layers and the input of W_j h_j: affine nodes between ReLUs are
multiplied out. `Linearised` bounds rows of one layer over the box with lines around the ReLUs before it: inactive units
are left out, and only unstable ones have columns for slopes, splits and multipliers. Nothing here is a proof.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redy.bounds.interval import needed_for
from redy.bounds.result import Range
from redy.model import Activate, Affine, Array, Box, Network
from redy.model.operators import Operator

INPUT = -1
"""The source that is the network's input; others are places in the list of layers."""
MOST = 1 << 24
"""Numbers that the matrices of all layers may hold (64 MiB)."""
FEW = 0.25
"""Share of the values before them up to which elements are bounded in groups that read the same."""
CALL = 5_000_000
"""Multiply-adds that take as long as what one step does beside them."""
SLOPE_STEP, MULTIPLIER_STEP, DECAY = 0.25, 0.3, 0.98
"""First steps of slopes and of multipliers (as a share of the largest coefficient), and their decay."""

Single = NDArray[np.float32]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """ReLUs and their pre-activation: weights (elements, size of the source) by source, bias (elements,)."""

    node: Activate
    weights: dict[int, Single]
    bias: Single


@dataclass(frozen=True, slots=True, eq=False)
class _Value:
    """An affine function of layers and input; `same` is the one source that it equals, flattened."""

    weights: dict[int, Single]
    bias: Single
    same: int | None = None


def layers_of(network: Network) -> list[Layer]:
    """The ReLU layers that only affine nodes and ReLUs lie before, as far as they fit into `MOST`."""
    values = {network.input.name: _Value({}, np.zeros(0, np.float32), INPUT)}
    layers: list[Layer] = []
    left = MOST
    needed = needed_for(network, [node.name for node in network.activations])
    for node in network.nodes:
        if node.name not in needed:
            continue
        if isinstance(node, Affine) and all(source in values for source in node.sources):
            inner = [_sizes(values[term.source], term.operator) for term in node.terms]
            left -= sum(math.prod(node.shape) * size for size in inner)
            if left < 0 or any(size > MOST // max(1, size) for size in inner):
                break
            values[node.name] = _affine(node, values)
        elif isinstance(node, Activate) and node.function.is_relu and node.source in values:
            before = values[node.source]
            if before.same is None:
                values[node.name] = _Value({}, np.zeros(0, np.float32), len(layers))
                layers.append(Layer(node, before.weights, before.bias))
    return layers


def _sizes(value: _Value, operator: Operator) -> int:
    if value.same is not None:
        return math.prod(operator.in_shape)
    return sum(weight.shape[1] for weight in value.weights.values())


def _applied(operator: Operator, weight: Single, size: int) -> Array:
    """The operator on every column of a matrix (in size, k): (size, k)."""
    columns = weight.T.reshape(weight.shape[1], *operator.in_shape).astype(np.float64)
    return np.asarray(operator.apply(columns).reshape(weight.shape[1], size).T)


def _affine(node: Affine, values: dict[str, _Value]) -> _Value:
    size = math.prod(node.shape)
    weights: dict[int, Single] = {}
    bias = node.bias.ravel().astype(np.float64)
    for term in node.terms:
        value, operator = values[term.source], term.operator
        if value.same is not None:
            parts = {value.same: operator.matrix()}
        else:
            parts = {source: _applied(operator, weight, size) for source, weight in value.weights.items()}
            bias += operator.apply(value.bias.reshape(1, *operator.in_shape).astype(np.float64)).ravel()
        for source, weight in parts.items():
            single = np.ascontiguousarray(weight, dtype=np.float32)
            weights[source] = weights[source] + single if source in weights else single
    return _Value(weights, bias.astype(np.float32))


def forward(layers: list[Layer], points: Single) -> list[Single]:
    """Pre-activations of all layers at inputs (n, inputs)."""
    hidden: dict[int, Single] = {INPUT: points}
    found: list[Single] = []
    for place, layer in enumerate(layers):
        z = layer.bias + sum(hidden[source] @ weight.T for source, weight in layer.weights.items())
        found.append(z)
        hidden[place] = np.maximum(z, 0)
    return found


def gradients(layers: list[Layer], target: int, places: Places, signs: Single, values: list[Single]) -> Single:
    """Of sign * z of one layer's elements, each at its own point, by the input; `values` as `forward` gives them."""
    forms = {source: weight[places] * signs[:, None] for source, weight in layers[target].weights.items()}
    for place in range(target - 1, -1, -1):
        if place in forms:
            through = forms.pop(place) * (values[place] > 0)
            for source, weight in layers[place].weights.items():
                pulled = through @ weight
                forms[source] = forms[source] + pulled if source in forms else pulled
    return forms[INPUT] if INPUT in forms else np.zeros((len(places), 1), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Optimised:
    """Per row the smallest bound, its slopes and multipliers (rows, columns), what each column costs, and a vertex."""

    upper: Single
    slopes: Single
    multipliers: Single
    cost: Single
    vertex: Single


class Linearised:
    """Lines around the ReLUs before one layer, and bounds of its rows with slopes of their own.

    Attributes:
        columns: per layer before the target its unstable elements and the slice of columns that they have.
        width: the number of columns.
    """

    def __init__(self, layers: list[Layer], target: int, elements: Places, ranges: list[Range], box: Box) -> None:
        """For some elements (ascending) of a layer; only what they depend on is held."""
        lower, upper = box.lower.ravel(), box.upper.ravel()
        moving, center = lower < upper, lower / 2 + upper / 2
        read = _read(layers, target, elements, [(high > 0).ravel() for _, high in ranges])
        self._point = center.astype(np.float32)
        self._inputs = np.flatnonzero(read[INPUT] & moving)
        self._center, self._radius = (v[self._inputs].astype(np.float32) for v in (center, upper - center))
        self._needed, self._target, self._own = sorted(read.keys() - {INPUT}), target, elements
        alive: dict[int, Places] = {INPUT: self._inputs, target: elements}
        self.columns: dict[int, tuple[Places, slice]] = {}
        self._lines: dict[int, tuple[Single, Single, Single]] = {}
        self.width = 0
        for i in self._needed:
            low, high = (end.ravel() for end in ranges[i])
            unstable, active = (np.flatnonzero(read[i] & side) for side in (low < 0, low >= 0))
            alive[i] = np.concatenate([unstable, active])
            self.columns[i] = unstable, slice(self.width, self.width + unstable.size)
            self.width += unstable.size
            low, high = low[unstable], high[unstable]
            above = np.where(np.isfinite(high - low), high / np.maximum(high - low, 1e-300), 1.0)
            self._lines[i] = _singles(above, -above * low, np.where(high > -low, 1.0, 0.0))
        fixed = np.flatnonzero(read[INPUT] & ~moving)
        self._weights: dict[int, dict[int, Single]] = {}
        self._bias: dict[int, Single] = {}
        for i in (*self._needed, target):
            weights, bias = layers[i].weights, layers[i].bias[alive[i]]
            if INPUT in weights:
                bias = bias + weights[INPUT][np.ix_(alive[i], fixed)] @ self._point[fixed]
            self._weights[i] = {j: np.ascontiguousarray(w[np.ix_(alive[i], alive[j])]) for j, w in weights.items()}
            self._bias[i] = bias
        self.intercepts = np.concatenate([np.zeros(0, np.float32), *(self._lines[i][1] for i in self._needed)])
        self.start = np.concatenate([np.zeros(0, np.float32), *(self._lines[i][2] for i in self._needed)])
        self._macs = sum(w.size for i in self._needed for w in self._weights[i].values()) + 20 * self.width

    def work(self, rows: int, steps: int) -> int:
        """Multiply-adds of `optimise`, with what small arrays cost beside them."""
        return (steps + 1) * (2 * rows * self._macs + CALL)

    def optimise(
        self,
        places: Places,
        signs: Single,
        steps: int,
        split: Single | None = None,
        slopes: Single | None = None,
        multipliers: Single | None = None,
    ) -> Optimised:
        """Upper bounds of sign * z for elements of the target; Adam (Kingma and Ba, ICLR 2015) finds their lines.

        Args:
            places: (rows,) elements of the target.
            signs: (rows,) 1 or -1.
            steps: of the gradient.
            split: (rows, columns) 1 where the row is about x >= 0, -1 for x <= 0, else 0.
            slopes: to begin with, in [0, 1].
            multipliers: to begin with, at least 0.
        """
        rows, places = len(places), np.searchsorted(self._own, places)
        alpha = np.tile(self.start, (rows, 1)) if slopes is None else slopes.copy()
        beta = None if split is None else np.zeros_like(split) if multipliers is None else multipliers.copy()
        moments = [np.zeros_like(alpha) for _ in range(2 if beta is None else 4)]
        best = np.full(rows, np.inf, np.float32)
        kept = [alpha.copy(), np.zeros_like(alpha), np.zeros_like(alpha), np.tile(self._center, (rows, 1))]
        for step in range(steps + 1):
            upper, forms, sides = self._upper(places, signs, alpha, beta, split)
            won = np.flatnonzero(upper < best)
            best[won] = upper[won]
            for array, new in zip(kept, (alpha, beta, forms, sides), strict=True):
                if new is not None:
                    array[won] = new[won]
            if step < steps:
                z = self._values(forms, sides, alpha, split)
                rates = SLOPE_STEP * DECAY**step, MULTIPLIER_STEP * DECAY**step
                gradient = np.minimum(forms, 0.0) * z
                if split is not None and beta is not None:
                    gradient *= split == 0
                    size = np.abs(forms).max(axis=1, keepdims=True, initial=0.0)
                    beta -= rates[1] * size * _adam(split * z, moments[2], moments[3], step)
                    np.maximum(beta, 0.0, out=beta)
                    beta *= split != 0
                alpha -= rates[0] * _adam(gradient, moments[0], moments[1], step)
                np.clip(alpha, 0.0, 1.0, out=alpha)
        cost = np.abs(kept[2]) * self.intercepts
        if split is not None:
            cost *= split == 0
        vertex = np.tile(self._point, (rows, 1))
        vertex[:, self._inputs] = kept[3]
        return Optimised(best, kept[0], kept[1], cost, vertex)

    def _upper(
        self, places: Places, signs: Single, alpha: Single, beta: Single | None, split: Single | None
    ) -> tuple[Single, Single, Single]:
        """Bounds, coefficients of the unstable elements' values, and the vertices (rows, moving inputs)."""
        forms = {j: w[places] * signs[:, None] for j, w in self._weights[self._target].items()}
        constant = self._bias[self._target][places] * signs
        seen = np.zeros_like(alpha)
        for i in reversed(self._needed):
            if i not in forms:
                continue
            form, (above, raised, _) = forms.pop(i), self._lines[i]
            where = self.columns[i][1]
            count = where.stop - where.start
            own = form[:, :count]
            seen[:, where] = own
            positive = np.maximum(own, 0.0)
            pulled = own - positive
            if split is None or beta is None:
                constant = constant + positive @ raised
                pulled *= alpha[:, where]
                pulled += positive * above
            else:
                side = split[:, where]
                free = side == 0
                constant = constant + (positive * free) @ raised
                pulled = np.where(free, pulled * alpha[:, where] + positive * above, own * (side > 0))
                pulled += beta[:, where] * side
            form[:, :count] = pulled
            constant = constant + form @ self._bias[i]
            for j, weight in self._weights[i].items():
                back = form @ weight
                forms[j] = forms[j] + back if j in forms else back
        form = forms.get(INPUT, np.zeros((len(places), len(self._center)), np.float32))
        upper = constant + form @ self._center + np.abs(form) @ self._radius
        sides = self._center + np.sign(form) * self._radius
        return np.where(np.isnan(upper), np.float32(np.inf), upper), seen, sides

    def _values(self, forms: Single, sides: Single, alpha: Single, split: Single | None) -> Single:
        """Pre-activations of the unstable elements in the linearised network at each row's vertex."""
        hidden: dict[int, Single] = {INPUT: sides}
        found = np.zeros_like(alpha)
        for i in self._needed:
            z = self._bias[i] + sum(hidden[j] @ weight.T for j, weight in self._weights[i].items())
            above, raised, _ = self._lines[i]
            where = self.columns[i][1]
            count = where.stop - where.start
            own = z[:, :count].copy()
            found[:, where] = own
            value = np.where(forms[:, where] > 0, above * own + raised, alpha[:, where] * own)
            if split is not None:
                side = split[:, where]
                value = np.where(side == 0, value, own * (side > 0))
            z[:, :count] = value
            hidden[i] = z
        return found


def alike(layer: Layer, elements: Places) -> list[Places]:
    """Elements that read the same values in groups, where each reads few (a convolution's); else all as one."""
    reads = np.concatenate([weight[elements] != 0 for weight in layer.weights.values()], axis=1)
    if reads.mean() > FEW:
        return [elements]
    _, group = np.unique(np.packbits(reads, axis=1), axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    return np.split(elements[order], np.flatnonzero(np.diff(group[order])) + 1)


def _read(
    layers: list[Layer], target: int, elements: Places, alive: list[NDArray[np.bool_]]
) -> dict[int, NDArray[np.bool_]]:
    """Of every layer, and of the input, which elements some elements of a layer depend on: those that may be active."""
    size = next((w.shape[1] for layer in layers for j, w in layer.weights.items() if j == INPUT), 0)
    found: dict[int, Mask] = {INPUT: np.zeros(size, dtype=bool)}
    for i in range(target, -1, -1):
        own = elements if i == target else np.flatnonzero(found[i]) if i in found else np.zeros(0, np.int64)
        for j, weight in layers[i].weights.items() if own.size else ():
            reads = (weight[own] != 0).any(axis=0)
            found[j] = found.get(j, np.zeros(weight.shape[1], dtype=bool)) | (reads if j == INPUT else reads & alive[j])
    return found


def _singles(*parts: Array) -> tuple[Single, Single, Single]:
    first, second, third = (np.asarray(part, dtype=np.float32) for part in parts)
    return first, second, third


def _adam(gradient: Single, first: Single, second: Single, step: int) -> Single:
    first *= np.float32(0.9)
    first += np.float32(0.1) * gradient
    second *= np.float32(0.999)
    second += np.float32(0.001) * gradient * gradient
    size = np.sqrt(second * np.float32(1 / (1 - 0.999 ** (step + 1))))
    size += np.float32(1e-12)
    return np.asarray(first * np.float32(1 / (1 - 0.9 ** (step + 1))) / size)
