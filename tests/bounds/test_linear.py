from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from drawing import FUNCTIONS, functions, generators, random_box, random_network
from exact import dense_network, exact_ranges
from hostile import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.bounds import linear
from redy.bounds.interval import interval_bounds, ranges
from redy.bounds.linear import form_bounds, linear_bounds, value_bounds
from redy.bounds.result import Bounds
from redy.errors import CheckFailed, Unsupported
from redy.model import (
    Activate,
    Affine,
    Box,
    Dense,
    Elementwise,
    Foreign,
    Gather,
    MaxPool,
    Network,
    Port,
    Product,
    Term,
    identity,
)
from redy.model.convolution import AveragePool, Conv, Windows
from redy.model.functions import clip, leaky_relu, relu

METHODS = [interval_bounds, linear_bounds]


@given(generators, functions, st.booleans())
@settings(max_examples=150, deadline=None)
def test_bounds_hold_for_the_exact_ranges(rng, function, coarse):
    network = random_network(rng, (2, 3, 3, 2), function, coarse=coarse)
    box = random_box(rng, 2, coarse=coarse)
    truth = exact_ranges(network, box.lower, box.upper)
    for method in METHODS:
        bounds = method(network, box)
        for node in network.activations:
            _check(truth[node.name], bounds.intervals[node.name])
        name = network.outputs[0].name
        _check(truth[name], value_bounds(network, bounds, name))


@given(generators, st.booleans())
@settings(max_examples=50, deadline=None)
def test_linear_is_never_looser_than_interval(rng, coarse):
    network = random_network(rng, (4, 8, 8, 8, 3), relu(), coarse=coarse)
    box = random_box(rng, 4, coarse=coarse)
    cheap, tight = interval_bounds(network, box), linear_bounds(network, box)
    for name, (lower, upper) in tight.intervals.items():
        assert (lower >= cheap.intervals[name][0]).all()
        assert (upper <= cheap.intervals[name][1]).all()


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
@pytest.mark.parametrize("method", METHODS)
def test_no_hostile_network_gets_a_wrong_proof(case, method):
    bounds = method(case.network, case.box)
    for unit, phases in case.phases().items():
        assert len(phases) > 1
        assert bounds.pieces(case.network)[unit.node].flat[unit.index] == -1


def test_bounds_that_are_exactly_zero_prove():
    # y >= 0, so z2 = -y_1 - 2 y_2 <= 0 and z3 = y_1 + y_2 >= 0, both with equality somewhere in the box.
    weight = np.array([[-1.0, -2.0], [1.0, 1.0], [0.0, 0.0]])
    layers = [(np.array([[0.3, -0.7], [1.1, 0.9]]), np.zeros(2)), (weight, np.zeros(3)), (np.ones((1, 3)), np.zeros(1))]
    network = dense_network(layers, relu())
    bounds = linear_bounds(network, Box(-np.ones(2), np.ones(2)))
    assert bounds.pieces(network)["y2"].tolist()[:2] == [0, 1]
    np.testing.assert_array_equal(np.array(bounds.intervals["y2"])[:, 2], 0)


def test_every_operator_and_node_kind_together():
    rng = np.random.default_rng(5)
    network = _convolutional(rng)
    box = Box(np.full((2, 6, 6), -0.2), np.full((2, 6, 6), 0.3))
    values = network.trace(box.sample(3000, rng))
    corners = network.trace(box.corners(2000, rng))
    bounds = linear_bounds(network, box)
    cheap = interval_bounds(network, box)
    for node in network.activations:
        lower, upper = bounds.intervals[node.name]
        for found in (values, corners):
            assert (found[node.source] >= lower).all()
            assert (found[node.source] <= upper).all()
        assert (upper - lower).sum() < (cheap.intervals[node.name][1] - cheap.intervals[node.name][0]).sum() + 1e-9
    for name, (lower, upper) in ranges(network, box, bounds).items():
        for found in (values, corners):
            assert (found[name] >= lower).all()
            assert (found[name] <= upper).all()
        tight = value_bounds(network, bounds, name)
        assert (values[name] >= tight[0]).all()
        assert (values[name] <= tight[1]).all()


def test_forms_of_outputs():
    rng = np.random.default_rng(3)
    network = random_network(rng, (3, 10, 10, 4), leaky_relu(0.1))
    box = Box(-0.2 * np.ones(3), 0.2 * np.ones(3))
    bounds = linear_bounds(network, box)
    forms = rng.normal(size=(7, 4))
    lower, upper = form_bounds(network, bounds, network.outputs[0].name, forms)
    found = network.evaluate(box.sample(5000, rng)) @ forms.T
    assert (found >= lower).all()
    assert (found <= upper).all()
    # The form is bounded as a whole: better than adding up bounds of its terms.
    ends = value_bounds(network, bounds, network.outputs[0].name)
    apart = np.maximum(forms, 0) @ ends[1] + np.minimum(forms, 0) @ ends[0]
    assert (upper < apart).all()


def test_chunks_do_not_change_bounds(monkeypatch):
    network = _convolutional(np.random.default_rng(1))
    box = Box(np.full((2, 6, 6), -0.1), np.full((2, 6, 6), 0.1))
    whole = linear_bounds(network, box)
    monkeypatch.setattr(linear, "CHUNK", 500)
    for name, (lower, upper) in linear_bounds(network, box).intervals.items():
        np.testing.assert_allclose(lower, whole.intervals[name][0], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(upper, whole.intervals[name][1], rtol=1e-12, atol=1e-12)


def test_known_bounds_tighten_what_lies_behind():
    network = random_network(np.random.default_rng(0), (3, 8, 8, 8, 2), relu())
    box = Box(-np.ones(3), np.ones(3))
    before = linear_bounds(network, box)
    inner = linear_bounds(network, Box(-0.1 * np.ones(3), 0.1 * np.ones(3)))
    known = Bounds(box, {"y1": inner.intervals["y1"]}, "test", trusted=("a test",))
    after = linear_bounds(network, box, known)
    assert after.trusted == ("a test",)
    assert (np.subtract(*after.intervals["y2"][::-1]) <= np.subtract(*before.intervals["y2"][::-1])).all()
    assert np.subtract(*after.intervals["y3"][::-1]).sum() < 0.9 * np.subtract(*before.intervals["y3"][::-1]).sum()


def test_what_cannot_be_bounded_is_refused_by_name_only_where_it_is_needed():
    before = _foreign_network(behind=False)
    box = Box(-np.ones(2), np.ones(2))
    for method in METHODS:
        assert method(before, box).intervals.keys() == {"y1"}
        with pytest.raises(Unsupported, match="odd: Mystery"):
            method(_foreign_network(behind=True), box)
        left = method(_foreign_network(behind=True), box, leave_unsupported=True)
        assert np.isneginf(left.intervals["y2"][0]).all()
        assert np.isposinf(left.intervals["y2"][1]).all()
        assert np.isfinite(left.intervals["y1"]).all()
    with pytest.raises(Unsupported, match="odd: Mystery"):
        ranges(before, box)


def test_box_of_another_shape():
    network = random_network(np.random.default_rng(0), (3, 2, 2), relu())
    for method in METHODS:
        with pytest.raises(ValueError, match="shape"):
            method(network, Box(np.zeros(2), np.ones(2)))


def test_bounds_check_themselves():
    box = Box(np.zeros(1), np.ones(1))
    first = Bounds(box, {"y": (np.array([0.0]), np.array([2.0]))}, "test")
    tight = first.tighten(Bounds(box, {"y": (np.array([-1.0]), np.array([1.0]))}, "other", ("x",)))
    assert [end.tolist() for end in tight.intervals["y"]] == [[0.0], [1.0]]
    assert tight.trusted == ("x",)
    with pytest.raises(CheckFailed):
        first.tighten(Bounds(box, {"y": (np.array([3.0]), np.array([4.0]))}, "wrong"))
    with pytest.raises(ValueError, match="another box"):
        first.tighten(Bounds(Box(np.full(1, 0.5), np.ones(1)), {}, "smaller"))
    with pytest.raises(ValueError, match="read-only"):
        tight.intervals["y"][0][0] = 1.0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_point_box_gives_points(name):
    network = random_network(np.random.default_rng(2), (3, 6, 6, 2), FUNCTIONS[name])
    point = np.array([0.3, -0.2, 0.9])
    values = network.trace(point[None])
    for method in METHODS:
        for node in network.activations:
            lower, upper = method(network, Box(point, point)).intervals[node.name]
            np.testing.assert_allclose(upper, values[node.source][0], rtol=1e-11, atol=1e-11)
            assert (upper - lower < 1e-10).all()


def _check(truth, found):
    for (low, high), lower, upper in zip(truth, *found, strict=True):
        assert Fraction(float(lower)) <= low
        assert high <= Fraction(float(upper))


def _convolutional(rng: np.random.Generator) -> Network:
    """Padded convolution, residual sum, maximum and average pooling, a gate, a smooth activation, clip, dense."""
    windows = Windows((6, 6), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    first = Conv(rng.normal(size=(3, 2, 3, 3)) / 3, 2, windows)
    second = Conv(rng.normal(size=(3, 3, 3, 3)) / 3, 3, windows)
    index = np.arange(108).reshape(3, 3, 2, 3, 2).transpose(0, 1, 3, 2, 4).reshape(3, 3, 3, 4)
    pool = AveragePool(3, Windows((3, 3), (3, 3), (1, 1), (1, 1), (0, 0, 0, 0)), np.array(9.0))
    nodes = (
        Affine("c1", (Term("x", first),), rng.normal(size=(3, 6, 6)) * 0.1),
        Activate("r1", "c1", leaky_relu(np.array([0.0, 0.1, 0.2]).reshape(3, 1, 1)), (3, 6, 6)),
        Affine("c2", (Term("r1", second), Term("r1", identity((3, 6, 6)))), np.zeros((3, 6, 6))),
        Activate("r2", "c2", relu(), (3, 6, 6)),
        MaxPool("m", "r2", (3, 3, 3), index, {}),
        Elementwise("s", "m", (3, 3, 3), "Sigmoid", {}, lambda v: 1 / (1 + np.exp(-v))),
        Product("g", "s", "m", (3, 3, 3)),
        Activate("r3", "g", clip(0.1, 0.4), (3, 3, 3)),
        Affine("a", (Term("r3", pool),), np.full((3, 1, 1), -0.2)),
        Affine("f", (Term("a", Gather(np.arange(3), (3, 1, 1))),), np.zeros(3)),
        Affine("z", (Term("f", Dense.of(rng.normal(size=(4, 3)))),), np.zeros(4)),
        Activate("r4", "z", relu(), (4,)),
    )
    return Network(Port("x", (2, 6, 6)), nodes, (Port("r4", (4,)),))


def _foreign_network(*, behind: bool) -> Network:
    nodes = [
        Affine("z1", (Term("x", Dense.of(np.eye(2))),), np.zeros(2)),
        Activate("y1", "z1", relu(), (2,)),
        Foreign("odd", ("y1",), (2,), "Mystery", b"", np.sin),
    ]
    if behind:
        nodes += [
            Affine("z2", (Term("odd", Dense.of(np.eye(2))),), np.zeros(2)),
            Activate("y2", "z2", relu(), (2,)),
        ]
    return Network(Port("x", (2,)), tuple(nodes), (Port(nodes[-1].name, (2,)),))
