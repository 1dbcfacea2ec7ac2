"""The bound on what folding and rounding change holds, in exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from dense_networks import phase_findings, random_network
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.bounds.linear import linear_bounds
from redy.model import Activate, Affine, Box, Network
from redy.rewrite import Refusal, Shrunk, deviation, round_weights, shrink
from redy.rewrite.dense import flat_function


def exactly(network: Network, x: list[Fraction]) -> list[Fraction]:
    """The network at one point in rational arithmetic."""
    values = {network.input.name: x}
    for node in network.nodes:
        if isinstance(node, Affine):
            z = [Fraction(b) for b in node.bias.ravel()]
            for term in node.terms:
                for row, weights in enumerate(term.operator.matrix()):
                    z[row] += sum(Fraction(w) * v for w, v in zip(weights, values[term.source], strict=True) if w)
            values[node.name] = z
        else:
            assert isinstance(node, Activate)
            function = flat_function(node)
            values[node.name] = [piecewise(function, j, z) for j, z in enumerate(values[node.source])]
    return values[network.outputs[0].name]


def piecewise(function, unit: int, z: Fraction) -> Fraction:
    breaks = [Fraction(t) for t in function.breakpoints[:, unit]]
    slopes = [Fraction(s) for s in function.slopes[:, unit]]
    result = Fraction(function.value[unit]) + slopes[0] * (min(z, breaks[0]) - breaks[0])
    for piece in range(1, len(slopes)):
        end = min(z, breaks[piece]) if piece < len(breaks) else z
        result += slopes[piece] * max(end - breaks[piece - 1], 0)
    return result


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1), layers=st.integers(1, 4), dtype=st.sampled_from(["float32", "float64", "float16"])
)
def test_the_written_network_is_within_the_bound_at_exact_points(seed, layers, dtype):
    rng = np.random.default_rng(seed)
    network = random_network(rng, layers=layers, width=5)
    middle = rng.normal(size=network.input.shape)
    box = Box(middle - 0.1, middle + 0.1)
    bounds = linear_bounds(network, box)
    # Units that the bounds show stuck: `phase_findings` on the interval's ends asks the same function.
    stuck = {name: {int(j) for j in np.flatnonzero(pieces >= 0)} for name, pieces in bounds.pieces(network).items()}
    sampled = phase_findings(network, box.sample(200, rng))
    findings = [f for f in sampled if f.unit.index in stuck[f.unit.node]]
    shrunk = shrink(network, findings)
    assert isinstance(shrunk, Shrunk)
    written = round_weights(shrunk.network, dtype)
    if isinstance(written, Refusal):
        return
    if shrunk.refusal is None:
        bound = deviation(shrunk.lined, written, shrunk.units, shrunk.merges, box, bounds.intervals)
        assert not isinstance(bound, Refusal)
        for point in [*box.sample(3, rng), *box.corners(4, rng)]:
            exact = [Fraction(v) for v in point]
            pairs = zip(exactly(network, exact), exactly(written, exact), bound["y"], strict=True)
            for before, after, allowed in pairs:
                assert abs(before - after) <= Fraction(allowed)


def test_a_changed_weight_shows_in_the_bound():
    rng = np.random.default_rng(3)
    network = random_network(rng, layers=3, width=5, skips=False)
    box = Box(np.full(network.input.shape, -0.5), np.full(network.input.shape, 0.5))
    shrunk = shrink(network, [])
    assert isinstance(shrunk, Shrunk)
    first = shrunk.network.nodes[-1]
    moved = Affine(first.name, first.terms, first.bias + 0.25)
    wrong = Network(network.input, (*shrunk.network.nodes[:-1], moved), network.outputs)
    intervals = linear_bounds(network, box).intervals
    bound = deviation(shrunk.lined, wrong, shrunk.units, shrunk.merges, box, intervals)
    assert not isinstance(bound, Refusal)
    assert (bound["y"] >= 0.25).all()
