"""Compilation is announced once; what is compiled already is not."""

from __future__ import annotations

import numba

from redy.bounds.compiling import announced


def test_only_what_is_compiled_is_announced():
    said: list[str] = []
    double = numba.njit(lambda x: 2 * x)
    triple = numba.njit(lambda x: 3 * x)
    with announced(said.append):
        assert double(2) == 4
        assert triple(2) == 6
    assert said == ["compiling kernels, once on this machine"]
    with announced(said.append):
        assert double(3) == 6
    assert len(said) == 1
    numba.njit(lambda x: 4 * x)(1)
    assert len(said) == 1
