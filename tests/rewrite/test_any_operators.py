"""What holds on a box is used behind any operator: fixed inputs, stuck elements, dead positions, features."""

from __future__ import annotations

import numpy as np
import pytest
from dense_networks import line_finding
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.formats.reading.smooth import _sigmoid
from redy.model import (
    Activate,
    Affine,
    Box,
    Dense,
    Elementwise,
    Gather,
    MaxPool,
    Network,
    Operator,
    Port,
    Positionwise,
    Product,
    Scale,
    Term,
    identity,
)
from redy.model.convolution import AveragePool, Conv, ConvTranspose, Windows
from redy.model.functions import clip, relu
from redy.rewrite import Facts, Shrunk, shrink
from redy.rewrite.constants import constants_of, propagate_constants
from redy.rewrite.dead import drop_dead
from redy.rewrite.dense import is_vector


class _Builder:
    """A random network under construction, one node a call."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
        self.rng, self.nodes, self.shape, self.name, self.first = rng, [], shape, "x", shape

    def affine(self, operator: Operator, *, skip: bool = False) -> None:
        terms = [Term(self.name, operator)]
        if skip and operator.in_shape == operator.out_shape:
            terms.append(Term(self.name, identity(operator.in_shape)))
        bias = self.rng.normal(size=operator.out_shape) if self.rng.random() < 0.5 else np.zeros(operator.out_shape)
        self._add(Affine(f"n{len(self.nodes)}", tuple(terms), bias))

    def step(self) -> None:
        rng, shape = self.rng, self.shape
        kind = rng.integers(8)
        if kind <= 2 and len(shape) == 3:
            self._image(kind)
        elif kind <= 2 and len(shape) == 2:
            self.affine(Positionwise(_sparse(rng, (int(rng.integers(1, 5)), shape[-1])), shape), skip=True)
        elif kind <= 2:
            self.affine(self._dense(int(np.prod(shape))), skip=True)
        elif kind == 3:
            function = [relu(), clip(-0.5, 0.5)][rng.integers(2)]
            self._add(Activate(f"n{len(self.nodes)}", self.name, function, shape))
        elif kind == 4:
            self._add(Elementwise(f"n{len(self.nodes)}", self.name, shape, "Sigmoid", {}, _sigmoid))
        elif kind == 5:
            before = [n.name for n in self.nodes if n.shape == shape] or [self.name]
            self._add(Product(f"n{len(self.nodes)}", self.name, before[rng.integers(len(before))], shape))
        elif kind == 6:
            self.affine(Scale(_sparse(rng, shape)))
        else:
            size = int(np.prod(shape))
            self.affine(Gather(np.where(rng.random(size) < 0.2, -1, rng.permutation(size)), shape))

    def _dense(self, size: int) -> Dense:
        rows = int(self.rng.integers(1, 6))
        return Dense(_sparse(self.rng, (rows, size)), self.shape, (rows,))

    def _image(self, kind: int) -> None:
        rng, shape = self.rng, self.shape
        if min(shape[1:]) < 2:
            self.affine(Gather(np.arange(int(np.prod(shape))), shape))
            return
        windows = Windows(shape[1:], (2, 2), (1, 1), (1, 1), (1, 0, 0, 1) if rng.random() < 0.5 else (0, 0, 0, 0))
        if kind == 0:
            self.affine(Conv(_sparse(rng, (int(rng.integers(1, 4)), shape[0], 2, 2)), shape[0], windows), skip=True)
        elif kind == 1 and rng.random() < 0.5:
            self.affine(AveragePool(shape[0], windows, np.array(4.0)))
        elif kind == 1:
            big = Windows((shape[1] + 1, shape[2] + 1), (2, 2), (1, 1), (1, 1), (0, 0, 0, 0))
            self.affine(ConvTranspose(Conv(_sparse(rng, (shape[0], 2, 2, 2)), 2, big)))
        else:
            size = int(np.prod(shape))
            plain = Windows(shape[1:], (2, 2), (1, 1), (1, 1), (0, 0, 0, 0))
            index = plain.unfold(np.arange(size, dtype=float).reshape(1, *shape))[0].astype(np.int64)
            index = index.reshape(*index.shape[:3], 4)
            attributes = {"kernel_shape": [2, 2]}
            self._add(MaxPool(f"n{len(self.nodes)}", self.name, index.shape[:-1], index, attributes))

    def _add(self, node: object) -> None:
        self.nodes.append(node)
        self.name, self.shape = node.name, node.shape

    def network(self) -> Network:
        self.affine(Dense(_sparse(self.rng, (2, int(np.prod(self.shape)))), self.shape, (2,)))
        return Network(Port("x", self.first), tuple(self.nodes), (Port(self.name, (2,)),))


def _sparse(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.where(rng.random(shape) < 0.3, 0.0, rng.normal(size=shape))


def drawn(seed: int) -> tuple[Network, Box, np.ndarray]:
    """A network of random operators, a box that fixes some of its inputs, and points of the box."""
    rng = np.random.default_rng(seed)
    shape = [(5,), (1, 4), (3, 4), (2, 4, 4)][rng.integers(4)]
    builder = _Builder(rng, shape)
    for _ in range(int(rng.integers(1, 8))):
        builder.step()
    center = rng.normal(size=shape)
    radius = np.where(rng.random(shape) < rng.choice([0.0, 0.5, 0.9]), 0.0, rng.choice([0.01, 0.3]))
    box = Box(center - radius, center + radius)
    return builder.network(), box, box.sample(40, rng)


def facts_at(network: Network, box: Box, points: np.ndarray) -> tuple[Facts, list]:
    """The pieces of elements and the findings of neurons that hold at the points."""
    values, pieces, findings = network.trace(points), {}, []
    for node in network.activations:
        z = values[node.source]
        pieces[node.name] = node.function.stuck(z.min(axis=0), z.max(axis=0)).ravel()
        function = node.function.broadcast_to(node.shape)
        slopes, intercepts = (part.reshape(len(part), -1) for part in (function.slopes, function.intercepts()))
        if is_vector(node.shape):
            findings += [
                line_finding(node.name, int(j), slopes[piece, j], intercepts[piece, j], "phase")
                for j, piece in enumerate(pieces[node.name])
                if piece >= 0
            ]
    return Facts(box, pieces), findings


@settings(deadline=None, max_examples=250)
@given(seed=st.integers(0, 2**32 - 1))
def test_networks_of_any_operators_stay_what_they_are_on_the_box(seed):
    network, box, points = drawn(seed)
    facts, findings = facts_at(network, box, points)
    result = shrink(network, findings, facts)
    assert isinstance(result, Shrunk)
    small, expected = result.network, network.evaluate(points)
    largest = max(float(np.abs(value).max()) for value in network.trace(points).values())
    np.testing.assert_allclose(small.evaluate(points), expected, rtol=1e-9, atol=1e-9 * (1 + largest))
    assert small.parameters <= network.parameters
    assert small.macs <= network.macs


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32 - 1))
def test_dead_elements_change_nothing_anywhere(seed):
    network, _box, _ = drawn(seed)
    points = np.random.default_rng(seed).normal(size=(20, *network.input.shape))
    small, kept = drop_dead(propagate_constants(network))
    largest = max(float(np.abs(value).max()) for value in network.trace(points).values())
    found = small.trace(points)
    for name, value in network.trace(points).items():
        if name in found:
            whole = value.reshape(len(points), -1)[:, kept[name]]
            np.testing.assert_allclose(found[name].reshape(whole.shape), whole, rtol=1e-9, atol=1e-9 * (1 + largest))


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32 - 1))
def test_constant_elements_have_their_values_at_every_point(seed):
    network, box, points = drawn(seed)
    values = network.trace(points)
    for name, found in constants_of(network, box)[1].items():
        flat = values[name].reshape(len(points), -1)[:, found.fixed]
        expected = np.broadcast_to(found.values[found.fixed], flat.shape)
        np.testing.assert_allclose(flat, expected, rtol=1e-9, atol=1e-9)


def test_fixed_inputs_go_through_a_sigmoid_and_leave_a_matrix_of_the_others():
    rng = np.random.default_rng(0)
    nodes = (
        Affine("z", (Term("x", Dense.of(rng.normal(size=(20, 50)))),), rng.normal(size=20)),
        Elementwise("s", "z", (20,), "Sigmoid", {}, _sigmoid),
        Affine("y", (Term("s", Dense.of(rng.normal(size=(2, 20)))),), np.zeros(2)),
    )
    network = Network(Port("x", (50,)), nodes, (Port("y", (2,)),))
    radius = np.where(np.arange(50) < 3, 0.1, 0.0)
    result = shrink(network, [], Facts(Box(-radius, radius), {}))
    assert isinstance(result, Shrunk)
    assert result.network.parameters == 20 * 3 + 20 + 2 * 20
    points = Box(-radius, radius).sample(20, rng)
    np.testing.assert_allclose(result.network.evaluate(points), network.evaluate(points), rtol=1e-12)


def test_dead_positions_of_a_convolution_go_from_the_dense_layer_behind_it():
    rng = np.random.default_rng(1)
    conv = Conv(rng.normal(size=(2, 1, 3, 3)), 1, Windows((6, 6), (3, 3), (1, 1), (1, 1), (0, 0, 0, 0)))
    nodes = (
        Affine("z", (Term("x", conv),), np.zeros((2, 4, 4))),
        Activate("a", "z", relu(), (2, 4, 4)),
        Affine("y", (Term("a", Dense(rng.normal(size=(10, 32)), (2, 4, 4), (10,))),), np.zeros(10)),
    )
    network = Network(Port("x", (1, 6, 6)), nodes, (Port("y", (10,)),))
    pieces = np.where(np.arange(32) % 2, 0, -1)
    points = rng.normal(size=(30, 1, 6, 6))
    result = shrink(network, [], Facts(Box(np.full((1, 6, 6), -9.0), np.full((1, 6, 6), 9.0)), {"a": pieces}))
    assert isinstance(result, Shrunk)
    assert result.network.parameters == 18 + 10 * 16
    hidden = network.trace(points)["a"].reshape(30, -1) * (pieces < 0)
    np.testing.assert_allclose(result.network.evaluate(points), hidden @ nodes[2].terms[0].operator.matrix().T)


@pytest.mark.parametrize("dead", [1, 3])
def test_features_behind_a_matrix_at_every_position_are_dropped_as_units(dead):
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(4, 3)), rng.normal(size=(5, 4))
    nodes = (
        Affine("z", (Term("x", Positionwise(first, (6, 3))),), np.zeros((6, 4))),
        Activate("a", "z", relu(), (6, 4)),
        Affine("y", (Term("a", Positionwise(second, (6, 4))),), np.zeros((6, 5))),
    )
    network = Network(Port("x", (6, 3)), nodes, (Port("y", (6, 5)),))
    pieces = np.tile(np.where(np.arange(4) < dead, 0, -1), (6, 1)).ravel()
    result = shrink(network, [], Facts(Box(np.full((6, 3), -1.0), np.full((6, 3), 1.0)), {"a": pieces}))
    assert isinstance(result, Shrunk)
    assert result.network.parameters == (3 + 5) * (4 - dead)
    assert result.network.by_name["a"].shape == (6, 4 - dead)
