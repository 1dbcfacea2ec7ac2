"""Composition moves weights and never rounds: where it is made, the composed matrix is exactly the product."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from redy.model import Affine, Dense, Gather, Scale, Term, identity
from redy.model.compose import compose, exact_sum, inline


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_gathers_compose_exactly(seed, middle, out, dense_inside):
    rng = np.random.default_rng(seed)
    outer = Gather(rng.integers(-1, middle, size=(out,)), (middle,))
    inner = Dense.of(rng.normal(size=(middle, 3))) if dense_inside else Gather(rng.integers(-1, 3, size=middle), (3,))
    composed = compose(outer, inner)
    if composed is None:
        assert isinstance(inner, Dense)
        assert out > middle
    else:
        np.testing.assert_array_equal(composed.matrix(), outer.matrix() @ inner.matrix())


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(0, 3))
def test_a_dense_operator_takes_in_a_rearrangement(seed, size, padding):
    rng = np.random.default_rng(seed)
    index = rng.permutation(np.append(np.arange(size), np.full(padding, -1)))
    outer, inner = Dense.of(rng.normal(size=(2, size + padding))), Gather(index, (size,))
    composed = compose(outer, inner)
    assert composed is not None
    np.testing.assert_array_equal(composed.matrix(), outer.matrix() @ inner.matrix())


def test_products_of_weights_are_declined():
    dense = Dense.of(np.ones((2, 2)))
    assert compose(dense, dense) is None
    assert compose(dense, Scale(np.array([0.1, 3.0]))) is None
    assert compose(dense, Gather(np.array([0, 0]), (1,))) is None


def test_a_sum_that_rounds_is_declined():
    assert exact_sum(np.array([1.0]), np.array([2.0**-60])) is None
    total = exact_sum(np.array([1.0, 0.0]), np.array([2.0**-30, 0.1]))
    np.testing.assert_array_equal(total, [1.0 + 2.0**-30, 0.1])


def test_a_bias_that_would_round_stays_in_its_own_node():
    first = Affine("a", (Term("x", Dense.of(np.eye(2))),), np.array([1.0, 1.0]))
    rounding = Affine("b", (Term("a", identity((2,))),), np.array([2.0**-60, 0.0]))
    exact = Affine("b", (Term("a", identity((2,))),), np.array([0.5, 0.0]))
    assert [node.name for node in inline([first, rounding], {"b"})] == ["a", "b"]
    (joined,) = inline([first, exact], {"b"})
    np.testing.assert_array_equal(joined.bias, [1.5, 1.0])
