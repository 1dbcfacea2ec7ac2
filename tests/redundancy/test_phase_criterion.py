"""Phases: every engine is right, none contradicts a point, and a channel needs all its positions."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.bounds.result import Bounds
from redy.errors import CheckFailed
from redy.model import Activate, Affine, Box, Dense, Network, Port, Proved, Term, Unit
from redy.model.functions import clip, hard_sigmoid, relu
from redy.questions import phases
from redy.questions.phases import PhaseSettings
from redy.questions.seen import sample_points, seen_at
from redy.redundancy.phase import find_phases, units_of

sys.path.insert(0, str(Path(__file__).parents[1] / "rewrite"))
from dense_networks import layer, network_of, random_network


def asked(network, box, **settings_):
    points = sample_points(box, 200, 64, 0)
    return find_phases(network, box, seen_at(network, points), points, PhaseSettings(**settings_))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), radius=st.floats(0.01, 1.0))
def test_engines_only_differ_in_what_they_leave_open(seed, radius):
    rng = np.random.default_rng(seed)
    network = random_network(rng, layers=3, width=5)
    middle = rng.normal(size=network.input.shape)
    box = Box(middle - radius, middle + radius)
    lines = {}
    for engine in ("linear", "branch", "milp"):
        answer = asked(network, box, engine=engine, solver="highs")
        for finding in answer.findings:
            assert isinstance(finding.verdict, Proved)
            assert lines.setdefault(finding.unit, finding.line) == finding.line
            function = network.by_name[finding.unit.node].function
            z = network.trace(box.sample(300, rng))[network.by_name[finding.unit.node].source][:, finding.unit.index]
            own = function.broadcast_to(network.shapes[finding.unit.node]).restricted(finding.unit.index)
            np.testing.assert_allclose(finding.line.slope * z + finding.line.intercept, own(z), atol=1e-9)
        assert not {f.unit for f in answer.findings} & set(answer.undecided)


def test_branching_proves_what_linear_bounds_cannot():
    # relu(x - 1/2) + relu(x + 1/2) >= relu(2 x): convex functions, the left one between the same lines.
    first = (np.array([[1.0], [1.0], [2.0]]), np.array([-0.5, 0.5, 0.0]))
    network = network_of(first, (np.array([[1.0, 1.0, -1.0]]), np.array([0.05])), (np.ones((1, 1)), np.zeros(1)))
    box = Box(np.array([-1.0]), np.array([1.0]))
    assert asked(network, box, engine="linear").undecided == (Unit("a1", 0),)
    answer = asked(network, box, engine="branch")
    assert answer.undecided == ()
    assert [(finding.unit, finding.line.slope) for finding in answer.findings] == [(Unit("a1", 0), 1.0)]


def test_a_line_that_is_not_exact_says_by_how_much():
    nodes = (
        Affine("z", (Term("x", Dense.of([[1.0]])),), np.zeros(1)),
        Activate("a", "z", hard_sigmoid(0.2, 0.5), (1,)),
        Affine("y", (Term("a", Dense.of([[1.0]])),), np.zeros(1)),
    )
    network = Network(Port("x", (1,)), nodes, (Port("y", (1,)),))
    finding = asked(network, Box(np.array([-1.0]), np.array([1.0])), engine="linear").findings[0]
    assert finding.line.slope == 0.2
    assert abs(finding.line.intercept - 0.5) < 1e-15
    assert 0 <= finding.error < 1e-15
    flat = asked(network, Box(np.array([3.0]), np.array([4.0])), engine="linear").findings[0]
    assert flat.line.slope == 0.0


def test_a_channel_is_stuck_only_if_all_its_positions_are():
    shape = (2, 1, 3)
    nodes = (
        Affine("z", (Term("x", Dense(np.eye(6), shape, shape)),), np.zeros(shape)),
        Activate("a", "z", clip(0.0, 6.0), shape),
        Affine("y", (Term("a", Dense(np.ones((1, 6)), shape, (1,))),), np.zeros(1)),
    )
    network = Network(Port("x", shape), nodes, (Port("y", (1,)),))
    lower = np.array([-2.0, -2, -2, 1, 1, -1]).reshape(shape)
    answer = asked(network, Box(lower, lower + 0.5), engine="linear")
    assert [finding.unit for finding in answer.findings] == [Unit("a", 0)]
    assert answer.undecided == ()
    assert [unit.index for unit, _ in units_of(network.activations[0])] == [0, 1]


def test_bounds_that_contradict_a_point_stop_everything(monkeypatch):
    network = network_of(layer(4, 2), layer(2, 4))
    box = Box(np.full(2, -1.0), np.full(2, 1.0))
    wrong = Bounds(box, {"a0": (np.full(4, 0.0), np.full(4, 1.0))}, "wrong")
    monkeypatch.setattr(phases, "linear_bounds", lambda *_, **__: wrong)
    with pytest.raises(CheckFailed, match="a0"):
        asked(network, box, engine="linear")


def test_rounding_never_shows_a_piece_that_is_not_reached():
    # The pre-activation is exactly 0 everywhere; in float64 it comes out as plus or minus rounding.
    nodes = (
        Affine("u", (Term("x", Dense.of([[0.1], [0.2], [0.3]])),), np.zeros(3)),
        Affine("z", (Term("u", Dense.of([[1.0, 1.0, -1.0]])),), np.zeros(1)),
        Activate("a", "z", relu(), (1,)),
        Affine("y", (Term("a", Dense.of([[1.0]])),), np.zeros(1)),
    )
    network = Network(Port("x", (1,)), nodes, (Port("y", (1,)),))
    low, high = seen_at(network, np.linspace(-1, 1, 1001)[:, None])["a"]
    assert not (low < 0 < high).any()
