from __future__ import annotations

import numpy as np
import pytest
from drawing import functions, generators, random_box, random_network
from exact import exact_ranges
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.bounds.interval import interval_bounds
from redy.bounds.linear import linear_bounds
from redy.errors import Unsupported
from redy.milp import encode, gurobi, highs, scip
from redy.milp.certify import certified_bound
from redy.milp.encode import Encoding
from redy.milp.program import Program
from redy.model import Activate, Affine, Box, Dense, Elementwise, MaxPool, Network, Port, Product, Term
from redy.model.functions import absolute, relu


@given(generators, functions, st.booleans(), st.sampled_from([gurobi.solve, highs.solve, scip.solve]))
@settings(max_examples=60, deadline=None)
def test_the_maximum_of_the_program_is_that_of_the_network(rng, function, coarse, solve):
    network = random_network(rng, (2, 3, 2, 2), function, coarse=coarse)
    box = random_box(rng, 2, coarse=coarse)
    encoding = Encoding(box)
    encoding.add(network, linear_bounds(network, box))
    name = network.outputs[0].name
    for place, (low, high) in enumerate(exact_ranges(network, box.lower, box.upper)[name]):
        for sign, extreme in ((1.0, high), (-1.0, -low)):
            program = encoding.program().aimed_at(*encoding.element(name, place, sign))
            outcome = solve(program, 10.0)
            assert outcome.status == "optimal"
            assert outcome.bound == pytest.approx(float(extreme), abs=1e-6)
            relaxed = solve(program.relaxed(), 10.0)
            assert certified_bound(program, relaxed.multipliers) >= extreme


@given(generators, functions, st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_point_of_the_network_is_a_point_of_the_program(rng, function, coarse):
    network = random_network(rng, (2, 4, 4, 2), function, coarse=coarse)
    box = random_box(rng, 2, coarse=coarse)
    encoding = Encoding(box)
    encoding.add(network, interval_bounds(network, box))
    program = encoding.program()
    for x in np.concatenate([box.corners(4, rng), box.sample(4, rng), [box.center]]):
        assert _completes(program, encoding, network, x)


def test_only_unstable_units_cost_variables():
    rng = np.random.default_rng(0)
    network = random_network(rng, (3, 12, 12, 2), relu())
    box = Box(-0.1 * np.ones(3), 0.1 * np.ones(3))
    bounds = linear_bounds(network, box)
    unstable = sum(int((pieces < 0).sum()) for pieces in bounds.pieces(network).values())
    assert 0 < unstable < 24
    encoding = Encoding(box)
    encoding.add(network, bounds)
    program = encoding.program()
    assert program.variables == 3 + 2 * unstable
    assert int(program.binary.sum()) == unstable
    assert program.rows == 3 * unstable  # y >= 0 is the range of y


def test_a_duplicate_shares_its_prefix():
    rng = np.random.default_rng(1)
    network = random_network(rng, (2, 8, 8, 8, 2), relu())
    box = Box(-np.ones(2), np.ones(2))
    changed = Network(
        network.input,
        tuple(
            Affine(node.name, (Term(node.terms[0].source, Dense.of(node.terms[0].operator.matrix() * 1.5)),), node.bias)
            if node.name == "z3"
            else Affine(node.name, node.terms, node.bias)  # an equal copy, not the same object
            if isinstance(node, Affine)
            else node
            for node in network.nodes
        ),
        network.outputs,
    )
    encoding = Encoding(box)
    encoding.add(network, linear_bounds(network, box))
    alone = encoding.program()
    encoding.add(changed, linear_bounds(changed, box), prefix="new ", shared=network)
    both = encoding.program()
    assert {key for key in encoding.forms if key.startswith("new ")} == {"new z3", "new y3", "new z4"}
    assert both.variables - alone.variables < alone.variables / 2
    # The largest difference of the outputs is found, and it is one.
    name = network.outputs[0].name
    weights = np.array([1.0, 0.0])
    program = both.aimed_at(*encoding.objective({name: -weights, f"new {name}": weights}))
    outcome = gurobi.solve(program, 20.0) if gurobi.available() else highs.solve(program, 20.0)
    assert outcome.status == "optimal"
    x = outcome.point[:2][None]
    assert (changed.evaluate(x) - network.evaluate(x))[0, 0] == pytest.approx(outcome.bound, abs=1e-6)
    points = box.sample(20000, rng)
    assert (changed.evaluate(points) - network.evaluate(points))[:, 0].max() <= outcome.bound + 1e-9


def test_an_unchanged_duplicate_costs_nothing():
    network = random_network(np.random.default_rng(1), (2, 8, 8, 2), relu())
    box = Box(-np.ones(2), np.ones(2))
    bounds = linear_bounds(network, box)
    encoding = Encoding(box)
    encoding.add(network, bounds)
    before = encoding.program().variables
    encoding.add(network, bounds, prefix="new ", shared=network)
    assert encoding.program().variables == before


def test_maximum_pooling_gates_and_smooth_activations():
    rng = np.random.default_rng(4)
    nodes = (
        Affine("z", (Term("x", Dense.of(rng.normal(size=(6, 2)))),), rng.normal(size=6) * 0.2),
        MaxPool("m", "z", (2,), np.array([[0, 1, 2], [3, 4, -1]]), {}),
        Elementwise("t", "m", (2,), "Tanh", {}, np.tanh),
        Product("p", "t", "m", (2,)),
        Activate("y", "p", absolute(), (2,)),
    )
    network = Network(Port("x", (2,)), nodes, (Port("y", (2,)), Port("m", (2,))))
    box = Box(-np.ones(2), np.ones(2))
    encoding = Encoding(box)
    encoding.add(network, linear_bounds(network, box))
    program = encoding.program()
    values = network.trace(box.sample(50000, rng))
    for place in range(2):
        exact = highs.solve(program.aimed_at(*encoding.element("m", place)), 10.0).bound
        found = values["m"][:, place].max()
        assert found <= exact <= found + 0.05
        loose = highs.solve(program.aimed_at(*encoding.element("y", place)), 10.0).bound
        assert loose >= values["y"][:, place].max()


def test_a_network_too_large_for_a_program_is_refused(monkeypatch):
    monkeypatch.setattr(encode, "LARGEST", 50)
    network = random_network(np.random.default_rng(1), (2, 8, 8, 2), relu())
    box = Box(-np.ones(2), np.ones(2))
    with pytest.raises(Unsupported, match="too large"):
        Encoding(box).add(network, linear_bounds(network, box))


def _completes(program: Program, encoding: Encoding, network: Network, x: np.ndarray) -> bool:
    """Whether the values of the network at x can be completed to a point of the program, up to float64 rounding."""
    values = network.trace(x[None])
    point = np.full(program.variables, np.nan)
    point[: x.size] = x
    for node in network.activations:
        forms = encoding.forms[node.name].coefficients
        for place in range(node.shape[0]):
            own = np.flatnonzero(forms[1:, place])
            if own.size == 1 and np.isnan(point[own[0]]):
                point[own[0]] = values[node.name][0, place]
    lower, upper = program.lower.copy(), program.upper.copy()
    known = ~np.isnan(point)
    lower[known], upper[known] = point[known] - 1e-9, point[known] + 1e-9
    fixed = Program(
        lower, upper, program.binary, program.starts, program.columns, program.values,
        program.row_lower - 1e-9, program.row_upper + 1e-9, program.objective,
    )  # fmt: skip
    return highs.solve(fixed, 10.0).status == "optimal"
