"""All rewrites together keep what the network computes and never make it larger."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from dense_networks import phase_findings, random_network

from redy.model import Network
from redy.rewrite import Shrunk, shrink


def applied(network: Network, findings) -> Shrunk:
    result = shrink(network, findings)
    assert isinstance(result, Shrunk)
    return result


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 2**32 - 1), layers=st.integers(1, 5), width=st.integers(1, 9), radius=st.floats(0.01, 1))
def test_outputs_stay_on_the_points_for_which_the_findings_hold(seed, layers, width, radius):
    rng = np.random.default_rng(seed)
    network = random_network(rng, layers=layers, width=width)
    points = rng.normal(size=network.input.shape) + radius * rng.uniform(-1, 1, (50, *network.input.shape))
    small = applied(network, phase_findings(network, points)).network
    expected = network.evaluate(points)
    np.testing.assert_allclose(small.evaluate(points), expected, rtol=1e-9, atol=1e-9 * (1 + np.abs(expected).max()))
    assert small.parameters <= network.parameters
    assert small.macs <= network.macs
