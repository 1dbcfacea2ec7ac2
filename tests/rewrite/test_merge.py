"""Parallel units become one; nearly parallel ones do not."""

from __future__ import annotations

import numpy as np
import pytest
from dense_networks import layer, network_of

from redy.model import Activate, Network
from redy.model.functions import clip, leaky_relu, relu
from redy.rewrite.dead import drop_dead
from redy.rewrite.merge import merge_parallel


def with_function(network: Network, function) -> Network:
    nodes = [Activate(n.name, n.source, function, n.shape) if isinstance(n, Activate) else n for n in network.nodes]
    return Network(network.input, tuple(nodes), network.outputs)


def parallel(factor: float, nudge: float = 0.0) -> Network:
    weight, bias = layer(4, 3)
    weight, bias = weight.astype(np.float64), bias.astype(np.float64)
    weight[2], bias[2] = factor * weight[0], factor * bias[0]
    weight[2, 1] += nudge
    return network_of((weight, bias), layer(2, 4))


@pytest.mark.parametrize("function", [relu(), leaky_relu(0.5)])
@pytest.mark.parametrize("factor", [1.0, 2.0, 0.25])
def test_parallel_units_of_a_homogeneous_function_are_merged(function, factor):
    network = with_function(parallel(factor), function)
    merged, merges = merge_parallel(network)
    assert merges == (("a0", 2, 0, factor),)
    small, _ = drop_dead(merged)
    assert small.units == 3
    points = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_allclose(small.evaluate(points), network.evaluate(points), rtol=1e-12, atol=1e-12)


def test_a_factor_other_than_one_needs_a_homogeneous_function():
    assert merge_parallel(with_function(parallel(2.0), clip(-1, 1)))[1] == ()
    assert merge_parallel(with_function(parallel(1.0), clip(-1, 1)))[1] == (("a0", 2, 0, 1.0),)


@pytest.mark.parametrize("network", [parallel(-1.0), parallel(2.0, 2.0**-50), parallel(0.0)])
def test_other_units_are_left_alone(network):
    assert merge_parallel(network)[1] == ()
