"""Row bases: exact dependence is found, doubt keeps every row."""

from __future__ import annotations

import numpy as np
import pytest

from redy.rewrite.rank import row_basis


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_dependent_rows_are_combinations_of_the_basis(rank):
    rng = np.random.default_rng(rank)
    rows = rng.normal(size=(8, rank)) @ rng.normal(size=(rank, 12))
    basis, combine = row_basis(rows)
    assert basis.size == rank
    np.testing.assert_allclose(combine @ rows[basis], rows, atol=1e-11 * np.abs(rows).max())
    np.testing.assert_array_equal(combine[basis], np.eye(rank))


def test_rows_of_very_different_size_are_judged_by_their_own_size():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, 10)) * [[1e9], [1.0], [1e-9], [1e-3]]
    assert row_basis(rows)[0].size == 4


def test_a_row_that_is_only_nearly_dependent_stays():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 10))
    rows[2] = rows[0] + rows[1] + 1e-9 * rng.normal(size=10)
    assert row_basis(rows)[0].size == 3


def test_more_rows_than_columns_have_the_rank_of_the_columns():
    rows = np.random.default_rng(0).normal(size=(9, 4))
    assert row_basis(rows)[0].size == 4
