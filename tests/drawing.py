"""Random networks, boxes and functions for property tests."""

from __future__ import annotations

import itertools

import numpy as np
from exact import dense_network
from hypothesis import strategies as st

from redy.model import Array, Box, Network, PiecewiseLinear
from redy.model.functions import absolute, clip, clip_above, clip_below, hard_sigmoid, leaky_relu, relu

FUNCTIONS: dict[str, PiecewiseLinear] = {
    "relu": relu(),
    "leaky": leaky_relu(0.125),
    "steep leaky": leaky_relu(3.0),
    "clip": clip(-0.5, 0.75),
    "above": clip_above(-0.25),
    "below": clip_below(0.25),
    "hard sigmoid": hard_sigmoid(),
    "absolute": absolute(),
    "zigzag": PiecewiseLinear(
        np.array([-1.0, 0.0, 0.5]), np.array([1.0, -2.0, 0.0, 3.0]), np.array(0.25)
    ),
}  # fmt: skip

functions = st.sampled_from(list(FUNCTIONS.values()))
generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def random_network(
    rng: np.random.Generator, sizes: tuple[int, ...], function: PiecewiseLinear, *, coarse: bool = False
) -> Network:
    """A dense network; `coarse` weights are small multiples of 1/4, so that exact zeros and ties are common."""
    layers: list[tuple[Array, Array]] = []
    for inputs, outputs in itertools.pairwise(sizes):
        if coarse:
            layers.append((rng.integers(-4, 5, (outputs, inputs)) / 4, rng.integers(-4, 5, outputs) / 4))
        else:
            layers.append((rng.normal(size=(outputs, inputs)), rng.normal(size=outputs) * 0.5))
    return dense_network(layers, function)


def random_box(rng: np.random.Generator, inputs: int, *, coarse: bool = False) -> Box:
    """A box around a point near the origin; `coarse` ends are small multiples of 1/4."""
    ends = np.sort(rng.integers(-4, 5, (2, inputs)) / 4 if coarse else rng.normal(size=(2, inputs)), axis=0)
    return Box(ends[0], ends[1])
