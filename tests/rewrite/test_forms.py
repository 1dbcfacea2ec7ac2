"""The choice of form: jointly cheapest, and equal to what is built."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from dense_networks import phase_findings, random_network
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.rewrite.constants import propagate_constants
from redy.rewrite.dead import drop_dead
from redy.rewrite.findings import apply_findings
from redy.rewrite.fold import fold, linear_layers, steps_of
from redy.rewrite.forms import JOINED, Step, cheapest, cost
from redy.rewrite.fuse import fuse

CHAIN = [
    Step("x", atom=5),
    Step("a", ("x",), fixed=10, linear=10, rank=10),
    Step("b", ("a",), fixed=10, linear=2, rank=2),
    Step("c", ("b",), fixed=10, linear=10, rank=10),
    Step("y", ("c",), fixed=5),
]


def test_cost_counts_the_blocks_by_hand():
    keep = cost(CHAIN, frozenset("abc"))
    assert keep[0] == 2 * (20 * 5 + 12 * 20 + 20 * 12 + 5 * 20) + (20 + 12 + 20 + 5)
    skip = cost(CHAIN, frozenset())
    assert skip[0] == 2 * (10 * 5 + 10 * 15 + 10 * 25 + 5 * 35) + (10 + 10 + 10 + 5) + (1 + 2 + 3) * JOINED


@pytest.mark.parametrize("joined", [0, JOINED])
def test_the_choice_is_the_best_of_all(joined):
    choices = [frozenset(keep) for size in range(4) for keep in itertools.combinations("abc", size)]
    assert cost(CHAIN, cheapest(CHAIN, joined), joined) == min(cost(CHAIN, keep, joined) for keep in choices)


def test_long_chains_are_never_worse_than_either_extreme():
    rng = np.random.default_rng(0)
    steps = [Step("x", atom=5)]
    for k in range(20):
        source = steps[-1].name
        linear = int(rng.integers(1, 20))
        steps.append(Step(f"a{k}", (source,), int(rng.integers(1, 12)), linear, linear))
    steps.append(Step("y", (steps[-1].name,), 5))
    layers = frozenset(step.name for step in steps if step.linear)
    chosen = cost(steps, cheapest(steps))
    assert chosen <= cost(steps, layers)
    assert chosen <= cost(steps, frozenset())


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), layers=st.integers(1, 4))
def test_every_choice_computes_the_same(seed, layers):
    rng = np.random.default_rng(seed)
    network = random_network(rng, layers=layers)
    points = rng.normal(size=network.input.shape) + 0.2 * rng.uniform(-1, 1, (40, *network.input.shape))
    lined = apply_findings(network, phase_findings(network, points))
    tidy = drop_dead(propagate_constants(fuse(lined)))[0]
    expected = network.evaluate(points)
    names = sorted(linear_layers(tidy))
    for size in range(len(names) + 1):
        for keep in itertools.combinations(names, size):
            small, _ = fold(tidy, {}, frozenset(keep))
            scale = 1 + np.abs(expected).max()
            np.testing.assert_allclose(small.evaluate(points), expected, rtol=1e-8, atol=1e-9 * scale)
            # Zero blocks are left out when building, so the count can only be an upper bound.
            counted = cost(steps_of(tidy), frozenset(keep))[0]
            assert 2 * small.macs + sum(n.bias.size for n in small.nodes if hasattr(n, "terms")) <= counted
