"""The condensed form and the kernel against evaluation in rational arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from drawing import FUNCTIONS, functions, generators, random_box, random_network
from exact import exact_trace
from hostile import HOSTILE
from hypothesis import given, settings

from redy.bounds.linear import linear_bounds
from redy.condensed.form import Condensed, Form, Variable, condense
from redy.condensed.search import Rows
from redy.model import Activate, Affine, Array, Box, Network, PiecewiseLinear, Port, Term
from redy.model.functions import leaky_relu, relu
from redy.model.operators import Dense

Exact = list[Fraction]


def exact_row(form: Form, row: int, x: Exact, v: Exact) -> Fraction:
    """C x + b + M v in rational arithmetic, without the error."""
    total = Fraction(float(form.b[row]))
    total += sum((Fraction(float(c)) * x_k for c, x_k in zip(form.C[row], x, strict=True)), Fraction(0))
    return total + sum((Fraction(float(m)) * v_j for m, v_j in zip(form.M[row], v, strict=False)), Fraction(0))


def residual_network(rng: np.random.Generator, function: PiecewiseLinear, size: int = 4) -> Network:
    """x -> z1 -> y1 -> z2 = W y1 + A x -> y2 -> z3 = W y2 + y1."""
    w1, w2, a, w3 = (rng.normal(size=shape) for shape in ((size, 2), (size, size), (size, 2), (size, size)))
    bias = [rng.normal(size=size) * 0.5 for _ in range(3)]
    nodes = (
        Affine("z1", (Term("x", Dense.of(w1)),), bias[0]),
        Activate("y1", "z1", function, (size,)),
        Affine("z2", (Term("y1", Dense.of(w2)), Term("x", Dense.of(a))), bias[1]),
        Activate("y2", "z2", function, (size,)),
        Affine("z3", (Term("y2", Dense.of(w3)), Term("y1", Dense.of(np.eye(size)))), bias[2]),
    )
    return Network(Port("x", (2,)), nodes, (Port("z3", (size,)),))


def check_rows(network: Network, box: Box, points: Sequence[Exact]) -> None:
    """Rows with their errors, and bounds and sizes of variables, contain the rational values at the points."""
    walk = condense(network, box, {})
    condensed = walk.condensed
    for x in points:
        values = exact_trace(network, x)
        v: Exact = []
        for i, variable in enumerate(condensed.variables):
            node = network.by_name[variable.node]
            assert isinstance(node, Activate)
            breaks = node.function.broadcast_to(node.shape).breakpoints
            t = Fraction(float(breaks[variable.breakpoint].ravel()[variable.element]))
            z = values[node.source][variable.element] - t
            assert abs(z - exact_row(condensed.rows[i], 0, x, v)) <= Fraction(float(condensed.rows[i].e[0]))
            assert Fraction(condensed.lower[i]) <= z <= Fraction(condensed.upper[i])
            v.append(max(z, Fraction(0)))
            assert v[-1] <= Fraction(condensed.size[i])
        for name, form in walk.forms.items():
            for row, value in enumerate(values[name]):
                assert abs(value - exact_row(form, row, x, v)) <= Fraction(float(form.e[row]))


def rationals(box: Box, count: int, rng: np.random.Generator) -> list[Exact]:
    """Float points, corners, and points between floats."""
    points = [[Fraction(float(v)) for v in x] for x in (*box.sample(count, rng), *box.corners(4, rng))]
    ends = [(Fraction(float(a)), Fraction(float(b))) for a, b in zip(box.lower, box.upper, strict=True)]
    thirds = [[a + (b - a) * int(rng.integers(0, 4)) / 3 for a, b in ends] for _ in range(count)]
    return [*points, *thirds]


@given(generators, functions)
@settings(max_examples=60, deadline=None)
def test_rows_contain_the_exact_values(rng, function):
    network = random_network(rng, (2, 4, 4, 2), function)
    box = random_box(rng, 2)
    check_rows(network, box, rationals(box, 3, rng))


@given(generators, functions)
@settings(max_examples=40, deadline=None)
def test_rows_of_residual_networks_contain_the_exact_values(rng, function):
    box = random_box(rng, 2)
    check_rows(residual_network(rng, function), box, rationals(box, 3, rng))


def test_rows_of_a_slope_per_unit_contain_the_exact_values():
    rng = np.random.default_rng(3)
    box = Box(np.full(2, -1.0), np.full(2, 1.0))
    check_rows(residual_network(rng, leaky_relu(np.array([0.1, 0.7, -0.3, 1.0]))), box, rationals(box, 20, rng))


def test_numbers_of_very_different_size_lose_nothing():
    rng = np.random.default_rng(4)
    for power in (20, 50, 80):
        network = random_network(rng, (2, 5, 5, 2), FUNCTIONS["leaky"])
        scaled = Network(network.input, tuple(_scaled(node, 2.0**power) for node in network.nodes), network.outputs)
        box = random_box(rng, 2)
        check_rows(scaled, box, rationals(box, 5, rng))


def _scaled(node: Affine | Activate, factor: float) -> Affine | Activate:
    """The first layer's weights grown, the second one's shrunk."""
    if isinstance(node, Activate) or node.name == "z3":
        return node
    power = factor if node.name == "z1" else 1 / factor
    return Affine(
        node.name, tuple(Term(t.source, Dense.of(t.operator.matrix() * power)) for t in node.terms), node.bias
    )


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_rows_of_hostile_networks(case):
    with np.errstate(over="ignore", invalid="ignore"):
        walk = condense(case.network, case.box, {})
        condensed = walk.condensed
        for x in case.points:
            values = exact_trace(case.network, x)
            for i, variable in enumerate(condensed.variables):
                z = values[case.network.by_name[variable.node].source][variable.element]
                node = case.network.by_name[variable.node]
                t = node.function.broadcast_to(node.shape).breakpoints[variable.breakpoint].ravel()[variable.element]
                lower, upper = condensed.lower[i], condensed.upper[i]
                assert not np.isfinite(lower) or Fraction(lower) <= z - Fraction(float(t))
                assert not np.isfinite(upper) or Fraction(upper) >= z - Fraction(float(t))


def sub_boxes(box: Box, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Random sub-boxes (count, n); every third is a single point."""
    ends = np.sort(box.sample(2 * count, rng).reshape(2, count, -1), axis=0)
    ends[1, ::3] = ends[0, ::3]
    return ends[0], ends[1]


def inside(lo: Array, hi: Array, rng: np.random.Generator) -> list[Exact]:
    """Rational points of a sub-box, corners included."""
    ends = [(Fraction(float(a)), Fraction(float(b))) for a, b in zip(lo, hi, strict=True)]
    return [[a + (b - a) * int(rng.integers(0, 4)) / 3 for a, b in ends] for _ in range(6)]


@given(generators, functions)
@settings(max_examples=60, deadline=None)
def test_kernel_bounds_contain_the_exact_values(rng, function):
    network = residual_network(rng, function)
    box = random_box(rng, 2)
    walk = condense(network, box, linear_bounds(network, box).intervals)
    rows = Rows.of(walk.condensed, walk.forms["z3"])
    lo, hi = sub_boxes(box, 6, rng)
    zlo, zhi = np.repeat(rows.zlo, 6, axis=0), np.repeat(rows.zhi, 6, axis=0)
    want = np.full((6, rows.count), 3, dtype=np.int8)
    low, high, _, vertex = rows.bound(lo, hi, zlo, zhi, want)
    assert ((lo <= vertex) & (vertex <= hi)).all()
    for k in range(6):
        for x in inside(lo[k], hi[k], rng):
            values = exact_trace(network, x)
            for i, variable in enumerate(walk.condensed.variables):
                node = network.by_name[variable.node]
                breaks = node.function.broadcast_to(node.shape).breakpoints[variable.breakpoint]
                z = values[node.source][variable.element] - Fraction(float(breaks.ravel()[variable.element]))
                assert Fraction(zlo[k, i]) <= z <= Fraction(zhi[k, i])
            for row, value in enumerate(values["z3"]):
                assert Fraction(low[k, row]) <= value <= Fraction(high[k, row])


def random_differences(rng: np.random.Generator, box: Box, pairs: int) -> tuple[Condensed, Form]:
    """A condensed form made by hand: plain variables, each with a difference variable; rows use all before them."""
    condensed = Condensed(box)
    shift = 10.0 ** rng.uniform(-6, 0.5)
    for k in range(pairs):
        for partner in (-1, 2 * k):
            scale = 1.0 if partner < 0 else shift
            used = len(condensed.variables)
            row = Form(
                rng.normal(size=(1, box.size)) * scale,
                rng.normal(size=1) * 0.3 * scale,
                rng.normal(size=(1, used)) * scale * rng.integers(0, 2, (1, used)),
                np.zeros(1),
            )
            low, high = condensed.interval(row)
            condensed.add(Variable("pair", k, 0), row, float(low[0]), float(high[0]), partner)
    count = len(condensed.variables)
    return condensed, Form(rng.normal(size=(3, box.size)), rng.normal(size=3), rng.normal(size=(3, count)), np.zeros(3))


def exact_rows_of(condensed: Condensed, extra: Form, x: Exact) -> tuple[Exact, Exact]:
    """All variable rows and all extra rows at one point."""
    z: Exact = []
    v: Exact = []
    for row, partner in zip(condensed.rows, condensed.partner, strict=True):
        z.append(exact_row(row, 0, x, v))
        base = Fraction(0) if partner < 0 else max(z[partner], Fraction(0))
        v.append(max(z[-1] + (z[partner] if partner >= 0 else 0), Fraction(0)) - base)
    return z, [exact_row(extra, row, x, v) for row in range(len(extra.b))]


@given(generators)
@settings(max_examples=80, deadline=None)
def test_kernel_bounds_with_difference_variables(rng):
    box = random_box(rng, 2)
    condensed, extra = random_differences(rng, box, 3)
    rows = Rows.of(condensed, extra)
    lo, hi = sub_boxes(box, 6, rng)
    zlo, zhi = np.repeat(rows.zlo, 6, axis=0), np.repeat(rows.zhi, 6, axis=0)
    low, high, _, _ = rows.bound(lo, hi, zlo, zhi, np.full((6, rows.count), 3, dtype=np.int8))
    for k in range(6):
        for x in inside(lo[k], hi[k], rng):
            z, outputs = exact_rows_of(condensed, extra, x)
            assert all(Fraction(a) <= value <= Fraction(b) for a, value, b in zip(zlo[k], z, zhi[k], strict=True))
            assert all(
                Fraction(a) <= value <= Fraction(b) for a, value, b in zip(low[k], outputs, high[k], strict=True)
            )


@given(generators)
@settings(max_examples=60, deadline=None)
def test_evaluation_is_within_its_stated_doubt(rng):
    box = random_box(rng, 2)
    condensed, extra = random_differences(rng, box, 3)
    rows = Rows.of(condensed, extra)
    points = box.sample(4, rng)
    for x, values in zip(points, rows.evaluate(points), strict=True):
        z, outputs = exact_rows_of(condensed, extra, [Fraction(float(v)) for v in x])
        for value, truth, doubt in zip(values, [*z, *outputs], rows.doubt, strict=True):
            assert abs(Fraction(float(value)) - truth) <= Fraction(float(doubt))


def test_bounds_on_a_point_are_as_tight_as_rounding():
    rng = np.random.default_rng(0)
    network = residual_network(rng, relu())
    box = Box(np.full(2, -1.0), np.full(2, 1.0))
    walk = condense(network, box, {})
    rows = Rows.of(walk.condensed, walk.forms["z3"])
    point = box.sample(50, rng)
    zlo, zhi = np.repeat(rows.zlo, 50, axis=0), np.repeat(rows.zhi, 50, axis=0)
    low, high, _, _ = rows.bound(point, point, zlo, zhi, np.full((50, rows.count), 3, dtype=np.int8))
    assert (high - low).max() < 1e-11
    assert np.allclose(network.trace(point)["z3"], low, atol=1e-11, rtol=0)


def test_an_overflow_bounds_nothing():
    network = random_network(np.random.default_rng(0), (1, 2, 1), relu())
    condensed = Condensed(Box(np.array([-1.0]), np.array([1.0])))
    rows = condense(network, condensed.box, {}).forms["z2"]
    rows.C[:], rows.b[:] = np.inf, -np.inf
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = condensed.interval(Form(rows.C, rows.b, np.zeros((1, 0)), rows.e))
    assert low == -np.inf
    assert high == np.inf
