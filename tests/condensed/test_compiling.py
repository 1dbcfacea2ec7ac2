"""Kernels are compiled once, for one set of types, which is logged; what is compiled already is not."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core import event

from redy.condensed import ascent, search
from redy.condensed.kernels import ascent as ascent_kernels
from redy.condensed.kernels import bounds, compiling, descent, row_bounds, unit_lines
from redy.condensed.kernels.compiling import cache_folder
from redy.reduction.warmup import warm_up

ROOT = Path(__file__).parents[2]


def dispatchers():
    for module in (ascent_kernels, bounds, descent, row_bounds, unit_lines):
        for name, value in vars(module).items():
            if isinstance(value, numba.core.registry.CPUDispatcher) and value.py_func.__module__ == module.__name__:
                yield name, value


def test_every_kernel_is_compiled_for_one_set_of_types():
    assert ascent.descend_row
    assert search.bound_boxes
    warm_up()
    assert {name: len(kernel.signatures) for name, kernel in dispatchers() if len(kernel.signatures) > 1} == {}


@pytest.mark.slow
def test_a_first_process_compiles_and_says_so_and_a_second_finds_everything(tmp_path):
    begin = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "redy",
        "reduce",
        "models/avoidance.onnx",
        "--bounds",
        "models/avoidance_close.box.json",
    ]
    said = []
    for run in range(3):
        target = str(tmp_path / f"small{run}.onnx")
        arguments = [*command, "-o", target, "--preserve", ("outputs", "decision", "outputs")[run], "--effort", "quick"]
        done = subprocess.run(arguments, cwd=ROOT, env=begin, capture_output=True, text=True, check=True)
        said.append(done.stderr.count("compiling the kernels of the search: about 10 s, once on this machine"))
        if run == 0:
            # A reduction of the shipped controller asks every kernel; what it did not, a warm-up compiles.
            subprocess.run([sys.executable, "-m", "redy", "warmup"], env=begin, check=True, capture_output=True)
    assert said == [1, 0, 0]


def test_only_kernels_of_redy_are_logged(caplog, monkeypatch):
    listener = compiling._Announce()

    def compiled(module):
        function = type(compiling)("m")
        function.py_func = type(test_only_kernels_of_redy_are_logged)(listener.on_start.__code__, {})
        function.py_func.__module__ = module
        return event.Event("numba:compile", event.EventStatus.START, {"dispatcher": function})

    with caplog.at_level(logging.INFO, "redy"):
        listener.on_start(compiled("somebody.else"))
        assert not caplog.records
        listener.on_start(compiled("redy.condensed.kernels.bounds"))
        listener.on_start(compiled("redy.condensed.kernels.bounds"))
    assert [record.getMessage() for record in caplog.records] == [
        "compiling the kernels of the search: about 10 s, once on this machine"
    ]


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
    monkeypatch.setattr(compiling, "_names", [])
    assert compiling.compiled(abs_difference)(2.0, 3.0) == 1.0
    assert str(tmp_path) == numba.config.CACHE_DIR


def test_a_drained_search_widens_the_bounds_by_every_box_left():
    counts, names = np.array([[3, 2], [2, 1]]), np.array([[0, 1, 2], [1, 2, 0]])
    zlo, zhi = np.array([[-1.0, -2.0], [-9.0, 5.0]]), np.array([[1.0, 2.0], [9.0, 5.0]])
    stack = (None, None, zlo, zhi, None, np.array([0, 1]), None)
    lower, upper, tree, counters = (
        np.full(2, np.inf),
        np.full(2, -np.inf),
        np.zeros(1, np.int16),
        np.array([2, 0, 0, 0]),
    )
    descent.drain(counts, names, stack, (lower, upper, None, tree), counters)
    assert (lower.tolist(), upper.tolist()) == ([-1.0, -9.0], [1.0, 9.0])
    assert (counters[descent.TOP], counters[descent.NODES], tree[0]) == (0, 1, -1)


def abs_difference(x, y):
    return abs(x - y)
