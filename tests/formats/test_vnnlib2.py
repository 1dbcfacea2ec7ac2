"""Boxes and properties from VNN-LIB 2.0."""

from __future__ import annotations

import numpy as np
import pytest

from redy.errors import InputError
from redy.formats.boxes import read_box
from redy.formats.vnnlib import boxes_from_vnnlib, property_from_vnnlib

pytest.importorskip("vnnlib")

HEAD = """; a comment
(vnnlib-version <2.0>)
(declare-network net (declare-input X Real [1,2]) (declare-input Z Real []) (declare-output Y Real [2]))
"""
BOUNDED = HEAD + (
    "(assert (and (>= X[0,0] 0.0) (<= X[0,0] 1.5)))(assert (and (>= X[0,1] -1.0) (< X[0,1] 1.0)))"
    "(assert (or (== Z 0.25) (and (>= Z 2.0) (<= (* 2.0 Z) (+ 3.0 3.5)))))"
)


def boxes(text):
    return [(box.lower.tolist(), box.upper.tolist()) for box in boxes_from_vnnlib(text, "p.vnnlib", (3,))]


def test_the_published_example(redy_data):
    box = read_box(redy_data("vnncomp/v2_cartpole.vnnlib"), (4,))
    lower = [-0.05549104989941913, -0.43609394989941913, -0.03762770689941913, 0.4034858001005809]
    upper = [-0.04762885010058087, -0.42823175010058084, -0.029765507100580874, 0.41134799989941917]
    assert (box.lower.tolist(), box.upper.tolist()) == (lower, upper)


def test_inputs_one_after_the_other_are_one_box():
    assert boxes(BOUNDED) == [([0, -1, 0.25], [1.5, 1, 0.25]), ([0, -1, 2], [1.5, 1, 3.25])]


def test_a_property_of_version_2():
    text = BOUNDED + "(assert (or (< Y[0] (- Y[1])) (and (!= Y[1] X[0,0]) (>= (- Y[0] Y[1] 1.0) (* -2.0 3.0 Z)))))"
    found = property_from_vnnlib(text, "p.vnnlib", (3,), 2, "p.vnnlib")
    rng = np.random.default_rng(0)
    for _ in range(400):
        x = np.array([rng.choice([0, 1, 1.5]), rng.choice([-1, 0, 1]), rng.choice([0.25, 2, 3])])
        y = rng.integers(-3, 4, 2).astype(float)
        wanted = x[1] < 1 and (y[0] < -y[1] or (y[1] != x[0] and y[0] - y[1] - 1 >= -6 * x[2]))
        assert any(part.met_by(x, y) for part in found) == wanted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOUNDED + "(assert (<= X[0,5] 1.0))", "line 4: Index out of bounds for variable (X[0,5])"),
        (BOUNDED + "(assert (<= X[0,0] ", "syntax error"),
        (BOUNDED + "(assert (<= (* X[0,0] X[0,1]) 1.0))", "of two variables is not linear"),
        (HEAD + "(assert (<= X[0,1] 1.0))", "X_0 has no lower bound"),
        (BOUNDED.replace("[1,2]", "[1,3]"), "declares 4 inputs X_i but the network has 3"),
        (HEAD + HEAD.split("\n")[2].replace("net", "other").replace("X", "V").replace("Y", "W"), "error"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(text, told):
    with pytest.raises(InputError) as caught:
        boxes(text)
    assert str(caught.value).startswith("p.vnnlib: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
