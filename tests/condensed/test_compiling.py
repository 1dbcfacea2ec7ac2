"""Compilation is announced once; what is compiled already is not."""

from __future__ import annotations

import numba

from redy.condensed.kernels import compiling
from redy.condensed.kernels.compiling import announced, cache_folder


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


def test_machine_code_is_kept_apart_for_every_state_of_the_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "compiling.py"))
    (tmp_path / "kernel.py").write_text("x = 1")
    fresh = cache_folder.__wrapped__
    first = fresh()
    assert fresh() == first
    (tmp_path / "kernel.py").write_text("x = 2")
    assert fresh() != first


def test_compiling_leaves_the_settings_of_others_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert compiling.compiled(abs_difference)(2.0, 3.0) == 1.0
    assert str(tmp_path) == numba.config.CACHE_DIR


def abs_difference(x, y):
    return abs(x - y)
