"""The pipeline: what it removes, what it keeps, what it states, and that it can be replayed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.errors import CheckFailed, InputError
from redy.model import Box, Proved
from redy.model.digest import network_digest
from redy.questions.seen import seen_at
from redy.reduction import CRITERIA, Known, Problem, reduce, replay

sys.path.insert(0, str(Path(__file__).parent / "rewrite"))
from dense_networks import layer, line_finding, network_of, random_network


def small_box(network, rng, radius=0.2) -> Box:
    middle = rng.normal(size=network.input.shape)
    return Box(middle - radius, middle + radius)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), engine=st.sampled_from(["linear", "branch", "auto"]))
def test_outputs_are_preserved_replayed_and_never_larger(seed, engine):
    rng = np.random.default_rng(seed)
    network = random_network(rng, layers=3, width=6)
    box = small_box(network, rng)
    reduction = reduce(network, box, engine=engine, samples=200)
    points = np.concatenate([box.sample(300, rng), box.corners(16, rng)])
    apart = np.abs(reduction.network.evaluate(points) - network.evaluate(points)).max(axis=0)
    assert reduction.guarantee.error is not None
    assert (apart <= reduction.guarantee.error["y"] + 1e-12).all()
    assert reduction.network.parameters <= network.parameters
    assert reduction.network.macs <= network.macs
    assert network_digest(replay(network, reduction)) == network_digest(reduction.network)
    assert reduction.guarantee.trusted == ()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), engine=st.sampled_from(["linear", "auto", "milp"]))
def test_no_unit_seen_in_two_pieces_is_called_redundant(seed, engine):
    rng = np.random.default_rng(seed)
    network = random_network(rng, layers=2, width=4)
    box = small_box(network, rng, 0.5)
    reduction = reduce(network, box, engine=engine, samples=50)
    phases = [finding for finding in reduction.findings if finding.kind == "phase"]
    assert {finding.kind for finding in reduction.findings} <= {"phase", "forward"}
    seen = seen_at(network, box.sample(5000, rng))
    for finding in phases:
        assert isinstance(finding.verdict, Proved)
        low, high = (end[finding.unit.index] for end in seen[finding.unit.node])
        breaks = network.by_name[finding.unit.node].function.broadcast_to(seen[finding.unit.node][0].shape).breakpoints
        crossed = (breaks[:, finding.unit.index] > low) & (breaks[:, finding.unit.index] < high)
        assert not crossed.any()


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_of_what_rounding_changes_comes_near_to_what_is_met(seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng, layers=5, width=16)
    box = small_box(network, rng, radius=0.02)
    guarantee = reduce(network, box, samples=200).guarantee
    bound, met = (values["y"] for values in (guarantee.error, guarantee.found))
    assert (met <= bound).all()
    assert bound.max() <= max(1.05 * met.max(), 1e-11)
    assert f"{bound.max():.3g}" in guarantee.statement


def test_a_box_beyond_what_the_search_can_bound_gets_one_linear_bound_or_keeps_the_original():
    rng = np.random.default_rng(0)
    network = random_network(rng, layers=3, width=6)
    box = Box(np.full(network.input.shape, -1e38), np.full(network.input.shape, 1e38))
    reduction = reduce(network, box, samples=200)
    assert np.isfinite(reduction.guarantee.error["y"]).all()
    assert reduction.guarantee.error["y"].max() < 1e-4 * np.abs(network.evaluate(box.corners(64, rng))).max()


def test_equal_seeds_give_equal_results_and_a_box_of_one_point_leaves_a_constant():
    network = random_network(np.random.default_rng(5), layers=3, width=6)
    box = Box(np.full(network.input.shape, 0.25), np.full(network.input.shape, 0.25))
    first, second = reduce(network, box), reduce(network, box)
    assert network_digest(first.network) == network_digest(second.network)
    assert first.network.units == 0


def test_a_time_limit_leaves_a_valid_network():
    network = random_network(np.random.default_rng(6), layers=4, width=9)
    box = Box(np.full(network.input.shape, -1.0), np.full(network.input.shape, 1.0))
    reduction = reduce(network, box, time_limit=1e-6)
    points = box.sample(100, np.random.default_rng(0))
    np.testing.assert_allclose(reduction.network.evaluate(points), network.evaluate(points), rtol=1e-3, atol=1e-4)


def test_the_published_pipeline_says_what_it_trusts():
    network = network_of(layer(8, 2, 1), layer(8, 8, 1), layer(2, 8, 1))
    box = Box(np.full(2, -0.4), np.full(2, 0.4))
    reduction = reduce(network, box, engine="milp", solver="highs")
    methods = {f.verdict.proof.method for f in reduction.findings if isinstance(f.verdict, Proved)}
    named = any(f.verdict.proof.trusted for f in reduction.findings if isinstance(f.verdict, Proved))
    assert bool(reduction.guarantee.trusted) == named
    assert methods
    for name in reduction.guarantee.trusted:
        assert name in reduction.guarantee.statement


def test_a_criterion_that_contradicts_the_points_stops_everything(monkeypatch):
    network = network_of(layer(4, 2), layer(2, 4))
    box = Box(np.full(2, -1.0), np.full(2, 1.0))

    def wrong(problem: Problem, known: Known) -> None:
        known.findings.append(line_finding("a0", 99, 0.0, 0.0, "phase"))

    monkeypatch.setitem(CRITERIA, "phase", replace(CRITERIA["phase"], search=wrong))
    with pytest.raises(CheckFailed, match="a0"):
        reduce(network, box, criteria=("phase",))


def test_replay_refuses_another_network():
    network = network_of(layer(4, 2), layer(2, 4))
    reduction = reduce(network, Box(np.zeros(2), np.ones(2)))
    with pytest.raises(ValueError, match="another network"):
        replay(network_of(layer(4, 2, 7), layer(2, 4)), reduction)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"criteria": ("magic",)}, "magic"),
        ({"preserve": "tolerance"}, "tolerance"),
        ({"tolerance": 0.1}, "tolerance"),
        ({"preserve": "tolerance", "tolerance": -1.0}, "positive"),
        ({"time_limit": 0.0}, "time limit"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, text):
    network = network_of(layer(4, 2), layer(2, 4))
    with pytest.raises(InputError, match=text):
        reduce(network, Box(np.zeros(2), np.ones(2)), **options)


def test_a_box_of_another_shape_is_refused():
    with pytest.raises(InputError, match="shape"):
        reduce(network_of(layer(4, 2), layer(2, 4)), Box(np.zeros(3), np.ones(3)))
