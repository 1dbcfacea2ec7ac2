"""The evaluation of a small dense network in the type of its weights, with every summation in one fixed order.

    z_i = (...((b_i + w_i1 x_1) + w_i2 x_2) + ...),   y_i = f(z_i)

Products and sums are rounded one by one, terms in the order of the sources, columns ascending. So a result depends
neither on the batch it is computed in nor on a library's blocking, and the C99 export gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redy.errors import InputError
from redy.model import Activate, Affine, Dense, Network, Node, PiecewiseLinear, Port, Term
from redy.model.functions import relu
from redy.rewrite.dense import dense_affine, flat_function
from redy.slicing.masks import Codes, by_activation

Weights = NDArray[Any]
"""An array in the type of the network's weights (float32 or float64)."""

LARGE = 1 << 22
"""Products held at once when a sum is formed row by row; above it the sum goes column by column (the same bits)."""


@dataclass(frozen=True, slots=True, eq=False)
class Straight:
    """Rows of a layer with ReLU that are lines instead: y = slope z + intercept, rounded twice.

    Attributes:
        rows: their numbers in the layer, ascending.
        slope, intercept: (rows,) in the type of the weights.
    """

    rows: NDArray[np.int64]
    slope: Weights
    intercept: Weights


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One layer: value = f(bias + sum of weight @ value of source).

    Attributes:
        sources: per term the number of the value it reads; 0 is the input, k the value of the k-th step.
        weights: per term its matrix (rows, columns).
        bias: (rows,).
        relu: whether max(z, 0) follows.
        straight: the rows for which a line follows instead.
    """

    sources: tuple[int, ...]
    weights: tuple[Weights, ...]
    bias: Weights
    relu: bool
    straight: Straight | None = None

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        lines = 0 if self.straight is None else self.straight.rows.size
        return sum(weight.size for weight in self.weights) + lines

    def activated(self, z: Weights) -> Weights:
        """The value for sums z (n, rows)."""
        y = np.where(z > 0, z, z.dtype.type(0)) if self.relu else np.array(z)
        if self.straight is not None:
            rows = self.straight.rows
            y[:, rows] = self.straight.slope * z[:, rows] + self.straight.intercept
        return y


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Steps in order; the value of the last one is the output.

    `evaluate` takes (n, inputs) in the weights' type and gives (n, outputs).
    """

    inputs: int
    steps: tuple[Step, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the weights, inputs and outputs."""
        return self.steps[-1].bias.dtype

    @property
    def macs(self) -> int:
        """Multiply-adds of one evaluation."""
        return sum(step.macs for step in self.steps)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.macs + sum(step.bias.size for step in self.steps)

    def arrays(self) -> Iterator[tuple[int, int | None, Weights]]:
        """Every array in order: the number of its step (from 1), the value that it reads (None for a bias), itself."""
        for number, step in enumerate(self.steps, start=1):
            yield number, None, step.bias
            for source, weight in zip(step.sources, step.weights, strict=True):
                yield number, source, weight

    def evaluate(self, x: Weights) -> Weights:
        """The outputs."""
        values = [np.ascontiguousarray(x, dtype=self.dtype)]
        for step in self.steps:
            z = np.broadcast_to(step.bias, (len(x), step.bias.size))
            for source, weight in zip(step.sources, step.weights, strict=True):
                z = _accumulated(z, weight, values[source])
            values.append(step.activated(z))
        return values[-1]


def _accumulated(start: Weights, weight: Weights, x: Weights) -> Weights:
    """start + weight @ x, summed in the order of the columns."""
    rows, columns = weight.shape
    if len(x) * rows * (columns + 1) <= LARGE:
        parts = np.empty((len(x), rows, columns + 1), dtype=weight.dtype)
        parts[:, :, 0] = start
        np.multiply(weight, x[:, None, :], out=parts[:, :, 1:])
        return np.asarray(np.add.accumulate(parts, axis=2)[:, :, -1])
    total = np.array(start)
    for column in range(columns):
        total += x[:, column, None] * weight[:, column]
    return total


def program_of(network: Network, dtype: str | None = None) -> Program:
    """The program of a dense ReLU network in the normal form of `redy.rewrite.fuse`.

    Raises:
        InputError: a node is neither dense affine nor ReLU, or there are several outputs.
    """
    kind = np.dtype(network.weight_dtype if dtype is None else dtype)
    if kind not in (np.dtype("float32"), np.dtype("float64")):
        raise InputError(f"a family holds float32 or float64 networks, not {kind}")
    if len(network.outputs) != 1:
        raise InputError(f"a family evaluates networks with one output; this one has {len(network.outputs)}")
    number, steps = {network.input.name: 0}, list[Step]()
    for node in network.nodes:
        if isinstance(node, Affine) and dense_affine(node):
            readers = network.readers[node.name]
            relu = len(readers) == 1 and isinstance(readers[0], Activate) and node.name not in _outputs(network)
            sources = tuple(number[term.source] for term in node.terms)
            weights = tuple(term.operator.matrix().astype(kind) for term in node.terms)
            steps.append(Step(sources, weights, node.bias.ravel().astype(kind), relu))
        elif isinstance(node, Activate) and _is_relu(node):
            if steps and number.get(node.source) == len(steps) and steps[-1].relu:
                number[node.name] = len(steps)
                continue
            size = math.prod(node.shape)
            unit = (np.eye(size, dtype=kind),)
            steps.append(Step((number[node.source],), unit, np.zeros(size, dtype=kind), relu=True))
        else:
            raise InputError(
                f"{node.name}: a family evaluates dense layers with ReLU only; write its slices with `redy reduce`"
            )
        number[node.name] = len(steps)
    output = number[network.outputs[0].name]
    if output != len(steps) or not steps:
        size = math.prod(network.outputs[0].shape)
        steps.append(Step((output,), (np.eye(size, dtype=kind),), np.zeros(size, dtype=kind), relu=False))
    return Program(math.prod(network.input.shape), tuple(steps))


def network_of(program: Program, like: Network) -> Network:
    """A program as a network with the input and the output of another, every number as it is evaluated."""
    names, shapes, nodes, out = [like.input.name], [like.input.shape], list[Node](), like.outputs[0]
    for number, step in enumerate(program.steps, start=1):
        last = number == len(program.steps)
        shape = out.shape if last else (step.bias.size,)
        terms = tuple(
            Term(names[source], Dense(weight.astype(np.float64), shapes[source], shape))
            for source, weight in zip(step.sources, step.weights, strict=True)
        )
        name, function = out.name if last else f"{out.name}: step {number}", _function_of(step, shape)
        affine = name if function is None else f"{name}, sums"
        nodes.append(Affine(affine, terms, step.bias.astype(np.float64).reshape(shape)))
        if function is not None:
            nodes.append(Activate(name, affine, function, shape))
        names.append(name)
        shapes.append(shape)
    dtype = program.dtype.name
    return Network(like.input, tuple(nodes), (Port(out.name, out.shape),), weight_dtype=dtype)


def _function_of(step: Step, shape: tuple[int, ...]) -> PiecewiseLinear | None:
    """What follows the sums of a step, one function per row, in this shape; None where nothing does."""
    if not step.relu and step.straight is None:
        return None
    if step.straight is None:
        return relu()
    value, slopes = np.zeros(step.bias.size), np.ones((2, step.bias.size))
    slopes[0] = 0.0 if step.relu else 1.0
    slopes[:, step.straight.rows] = step.straight.slope
    value[step.straight.rows] = step.straight.intercept
    return PiecewiseLinear(np.zeros((1, *shape)), slopes.reshape(2, *shape), value.reshape(shape))


def _outputs(network: Network) -> set[str]:
    return {port.name for port in network.outputs}


def _is_relu(node: Activate) -> bool:
    function: PiecewiseLinear = flat_function(node)
    return function.is_relu


def selected(network: Network, program: Program, wanted: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Per value of the original's program (0 is the input) its elements: of activations the wanted units, else all.

    The k-th ReLU step of the program is the k-th activation of the network, to whose units (units,) `wanted` belongs.
    """
    chosen = [np.flatnonzero(mine) for _, mine in by_activation(network, wanted)]
    found, activation = [np.arange(program.inputs)], 0
    for step in program.steps:
        found.append(chosen[activation] if step.relu else np.arange(step.bias.size))
        activation += step.relu
    return found


def living(network: Network, program: Program, codes: Codes) -> list[NDArray[np.int64]]:
    """Per value of the original's program the elements that a slice touches: all but inactive units."""
    return selected(network, program, codes != 0)


def restricted(
    program: Program,
    alive: Sequence[NDArray[np.int64]],
    lines: Sequence[tuple[NDArray[np.int64], NDArray[np.void]]] = (),
) -> Program:
    """The program on living rows and columns only.

    Args:
        program: the original's.
        alive: `living`.
        lines: per activation units, all of them alive, with their lines (`redy.slicing.lines.by_layer`).
    """
    steps, ahead = [], iter(lines)
    for step, rows in zip(program.steps, alive[1:], strict=True):
        weights = tuple(w[np.ix_(rows, alive[s])] for s, w in zip(step.sources, step.weights, strict=True))
        units, mine = next(ahead, (None, None)) if step.relu else (None, None)
        straight = None
        if units is not None and mine is not None and units.size:
            slope, intercept = (mine[name].astype(program.dtype) for name in ("slope", "intercept"))
            straight = Straight(np.searchsorted(rows, units), slope, intercept)
        steps.append(Step(step.sources, weights, step.bias[rows], step.relu, straight))
    return Program(program.inputs, tuple(steps))
