from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from drawing import FUNCTIONS, functions, generators
from exact import _activate
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redy.bounds.relaxation import image, intercepts, piece_intercepts, relax, relax_product
from redy.model.functions import leaky_relu, relu

numbers = st.floats(-1e6, 1e6) | st.floats(-1e-300, 1e-300)


@example(leaky_relu(0.125), 0.0, -5e-324, [0.0], np.random.default_rng(0))
@given(functions, numbers, numbers, st.lists(numbers, min_size=1, max_size=5), generators)
@settings(max_examples=300, deadline=None)
def test_lines_enclose_the_function_in_exact_arithmetic(function, a, b, slopes, rng):
    lower, upper = np.array([min(a, b)]), np.array([max(a, b)])
    lines = relax(function, lower, upper)
    own = function.broadcast_to((1,))
    candidates = [(lines.lower_slope, lines.lower_intercept, lines.upper_slope, lines.upper_intercept)]
    for slope in slopes:
        below, above = intercepts(function, lower, upper, np.array([slope]))
        candidates.append((np.array([slope]), below, np.array([slope]), above))
    low, high = image(function, lower, upper)
    points = [Fraction(float(v)) for v in (lower[0], upper[0], *np.clip(own.breakpoints[:, 0], lower, upper))]
    points += [points[0] + (points[1] - points[0]) * Fraction(int(k), 97) for k in rng.integers(0, 98, 5)]
    for x in points:
        y = _activate(own, 0, x)
        assert Fraction(float(low[0])) <= y <= Fraction(float(high[0]))
        for s, c, t, d in candidates:
            assert (
                Fraction(float(s[0])) * x + Fraction(float(c[0]))
                <= y
                <= Fraction(float(t[0])) * x + Fraction(float(d[0]))
            )


def test_relu_gets_the_chord_and_the_adaptive_lower_slope():
    lines = relax(relu(), np.array([-1.0, -3.0, -2.0, 1.0]), np.array([3.0, 1.0, -1.0, 2.0]))
    np.testing.assert_array_equal(lines.lower_slope, [1, 0, 0, 1])
    np.testing.assert_allclose(lines.upper_slope, [0.75, 0.25, 0, 1])
    np.testing.assert_allclose(lines.upper_intercept, [0.75, 0.75, 0, 0])
    assert (lines.lower_intercept <= 0).all()
    np.testing.assert_array_equal(lines.upper_intercept[2:], 0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_stuck_unit_is_its_piece(name):
    function = FUNCTIONS[name]
    breaks = np.concatenate([[function.breakpoints[0] - 2], function.breakpoints, [function.breakpoints[-1] + 2]])
    for piece in range(function.pieces):
        lines = relax(function, breaks[piece : piece + 1], breaks[piece + 1 : piece + 2])
        assert lines.lower_slope[0] == lines.upper_slope[0] == function.slopes[piece]
        assert lines.upper_intercept[0] - lines.lower_intercept[0] < 1e-13


def test_intercepts_of_pieces_hold_exactly():
    function = FUNCTIONS["zigzag"]
    below, above = piece_intercepts(function)
    value = Fraction(float(function.value))
    exact = [value - Fraction(float(function.slopes[0])) * Fraction(float(function.breakpoints[0]))]
    for k, t in enumerate(function.breakpoints):
        exact.append(
            exact[-1]
            + (Fraction(float(function.slopes[k])) - Fraction(float(function.slopes[k + 1]))) * Fraction(float(t))
        )
    for c, low, high in zip(exact, below, above, strict=True):
        assert Fraction(float(low)) <= c <= Fraction(float(high))
    np.testing.assert_array_equal(piece_intercepts(relu()), np.zeros((2, 2)))


def test_slopes_per_channel():
    function = leaky_relu(np.array([0.1, 0.5]).reshape(2, 1, 1))
    lower, upper = np.full((2, 3, 3), -1.0), np.full((2, 3, 3), 1.0)
    lines = relax(function, lower, upper)
    assert lines.upper_slope.shape == (2, 3, 3)
    np.testing.assert_allclose(lines.upper_slope[:, 0, 0], [0.55, 0.75])


@given(st.lists(numbers, min_size=4, max_size=4), st.fractions(0, 1), st.fractions(0, 1))
def test_products_lie_between_their_planes(ends, s, t):
    (a, b), (c, d) = sorted(ends[:2]), sorted(ends[2:])
    left, right = relax_product((np.array([a]), np.array([b])), (np.array([c]), np.array([d])))
    x, y = (Fraction(u) + (Fraction(v) - Fraction(u)) * k for u, v, k in ((a, b, s), (c, d, t)))
    for sign, slopes, intercept in (
        (1, (left.lower_slope, right.lower_slope), left.lower_intercept),
        (-1, (left.upper_slope, right.upper_slope), left.upper_intercept),
    ):
        plane = Fraction(float(slopes[0][0])) * x + Fraction(float(slopes[1][0])) * y + Fraction(float(intercept[0]))
        assert sign * (x * y - plane) >= 0
