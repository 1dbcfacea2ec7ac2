"""Boxes from VNN-LIB properties: ACAS Xu's ten, and the corners of the syntax."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest

from redy.errors import InputError
from redy.formats.boxes import read_box, read_boxes
from redy.formats.vnnlib import boxes_from_vnnlib
from redy.model.box import Box

DECLARED = "(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n"
BOUNDED = DECLARED + "(assert (<= X_0 1))(assert (>= X_0 0))(assert (<= X_1 1))(assert (>= X_1 0))\n"


def boxes(text: str) -> list[tuple[list[float], list[float]]]:
    return [(box.lower.tolist(), box.upper.tolist()) for box in boxes_from_vnnlib(text, "p.vnnlib", (2,))]


@pytest.mark.parametrize("number", range(1, 11))
def test_acas_properties(redy_data, number):
    found = read_boxes(redy_data(f"acasxu/prop_{number}.vnnlib"), (5,))
    assert len(found) == (2 if number == 6 else 1)
    text = redy_data(f"acasxu/prop_{number}.vnnlib").read_text()
    # Every bound of the file is a bound of a box, and the other way round.
    written = {float(bound) for bound in re.findall(r"X_\d (-?[\d.]+)", text)}
    assert written == {bound for box in found for bound in (*box.lower.tolist(), *box.upper.tolist())}


def test_acas_property_3(redy_data):
    box = read_box(redy_data("acasxu/prop_3.vnnlib"), (5,))
    lower = [-0.303531156, -0.009549297, 0.493380324, 0.3, 0.3]
    assert box == Box(np.array(lower), np.array([-0.298552812, 0.009549297, 0.5, 0.5, 0.5]))


@pytest.mark.parametrize(
    ("assertions", "expected"),
    [
        ("(assert (<= 0 X_0))(assert (>= 1 X_0))(assert (< 2 X_1))(assert (> 3 X_1))", [([0, 2], [1, 3])]),
        ("(assert (and (>= X_0 -1e-1) (<= X_0 +.5) (= X_1 (- 2))))", [([-0.1, -2], [0.5, -2])]),
        ("; (assert (<= X_0 9))\n(assert (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1))) ; end", [([0, 0], [1, 1])]),
        (
            "(assert (or (and (>= X_0 0) (<= X_0 1)) (and (>= X_0 2) (<= X_0 3))))(assert (and (>= X_1 0) (<= X_1 1)))",
            [([0, 0], [1, 1]), ([2, 0], [3, 1])],
        ),
    ],
)
def test_forms_of_assertions(assertions, expected):
    assert boxes(DECLARED + assertions) == expected


def test_bounds_tighten_and_outputs_are_passed_over():
    extra = "(assert (<= X_0 0.5))(assert (<= X_0 0.75))(assert (or (and (<= Y_0 3)) (and (>= Y_0 4))))"
    assert boxes(BOUNDED + extra) == [([0, 0], [0.5, 1])]


BOX = [([-0.5, 0.5], [0.25, 0.5])]
FOUR = "(assert (<= X_0 0.25))(assert (>= X_0 -0.5))(assert (>= X_1 0.5))(assert (<= X_1 0.5))"


@pytest.mark.parametrize(
    "assertions",
    [
        "(assert (<= -0.5 X_0 0.25))(assert (= X_1 .5 0.50))",
        "(assert (not (> X_0 0.25)))(assert (not (< X_0 -0.5)))(assert (not (distinct X_1 .5)))",
        "(assert (<= X_0 (/ 1 4)))(assert (>= X_0 (- (/ 1.0 2.0))))(assert (= (* 2 X_1) (+ X_1 (/ 1 2))))",
        "(assert (not (or (> X_0 0.25) (not (and (>= X_0 -0.5) (=> (> X_0 7) false) (= X_1 0.5))))))",
        "(set-logic QF_LRA)(set-info :source |a (b|)\n" + FOUR + "(check-sat)(get-model)(exit) (nothing (",
        FOUR + "".join(f"(assert (or (<= Y_0 {i}) (>= Y_0 (+ X_0 {i + 7}))))" for i in range(30)),
        FOUR + "(assert (or " + "".join(f"(and (<= Y_0 {i}))" for i in range(300)) + "))",
        FOUR + "(assert (or (and (<= X_0 0.25) (<= Y_0 1)) (and (>= X_0 -0.5) (<= X_0 (+ X_1 3)))))",
        FOUR + "(assert (<= (+ X_0 X_1 (* 2 Y_0)) 1))(assert (<= (- X_0 X_1) 7))",
        "(assert (or (and " + "(>= X_0 -0.5) (<= X_0 0.25) (= X_1 0.5) (<= Y_0 1)) (and (<= X_0 0.25) (>= X_0 -0.5)"
        "(= X_1 0.5) (>= Y_0 2))))",
        "(assert (not (not (and (<= X_0 0.25) (>= X_0 -0.5) (= X_1 0.5)))))",
    ],
)
def test_spellings_of_one_box(assertions):
    assert boxes(DECLARED + assertions) == BOX


def test_disjunctions_over_inputs_give_boxes_in_order_and_those_of_one_side_their_union():
    text = BOUNDED + "(assert (or (<= X_0 0.5) (<= X_0 0.75) (>= X_1 0.5)))"
    assert boxes(text) == [([0, 0], [0.75, 1]), ([0, 0.5], [1, 1])]


def test_a_compressed_file_and_endings_in_capitals(tmp_path):
    text = DECLARED + FOUR
    (tmp_path / "p.vnnlib.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "P.VNNLIB").write_text(text)
    (tmp_path / "P.VNNLIB.GZ").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "not_compressed.vnnlib.gz").write_text(text)
    for path in tmp_path.iterdir():
        assert [(box.lower.tolist(), box.upper.tolist()) for box in read_boxes(path, (2,))] == BOX
    damaged = tmp_path / "damaged.vnnlib.gz"
    damaged.write_bytes(gzip.compress(text.encode())[:-9])
    with pytest.raises(InputError, match=r"damaged\.vnnlib\.gz: is compressed but damaged or cut short"):
        read_boxes(damaged, (2,))


def test_many_boxes_are_read_in_one_pass():
    parts = "".join(
        f"(and (>= X_0 {i}) (<= X_0 {i}.5) (= X_1 0) ({r} Y_0 1))" for i in range(3000) for r in ("<=", ">=")
    )
    found = boxes(DECLARED + f"(assert (or {parts}))")
    assert found == [([i, 0], [i + 0.5, 0]) for i in range(3000)]


def test_equal_boxes_come_once_and_contradictory_ones_not_at_all():
    assert boxes(BOUNDED + "(assert (or (<= X_0 1) (and (<= X_0 1) (<= Y_0 0)) (>= X_0 2)))") == [([0, 0], [1, 1])]


def test_an_image_is_read_in_c_order():
    text = "".join(f"(declare-const X_{i} Real)(assert (= X_{i} {i}))" for i in range(6))
    box = boxes_from_vnnlib(text, "p.vnnlib", (1, 2, 3))[0]
    np.testing.assert_array_equal(box.lower, np.arange(6.0).reshape(1, 2, 3))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOUNDED.replace("(assert (<= X_1 1))", ""), "X_1 has no upper bound"),
        (BOUNDED.replace("(assert (>= X_0 0))", ""), "X_0 has no lower bound"),
        (BOUNDED + "(assert (<= X_0 -1))", "the lower bound 0.0 of X_0 is above its upper bound -1.0"),
        (BOUNDED + "(assert (or))", "its assertions admit no input"),
        (BOUNDED + "(assert (<= X_0 nan))", "line 5: nan is neither a number nor a variable"),
        (BOUNDED + "(assert (<= (* X_0 X_1) 1))", "line 5: (* ...) of two variables is not linear"),
        (BOUNDED + "(assert (<= (* X_0 Y_0) 1))", "line 5: (* ...) of two variables is not linear"),
        (BOUNDED + "(assert (<= (/ 1 X_0) 1))", "line 5: (/ ...) of two variables is not linear"),
        (BOUNDED + "(assert (<= (/ X_0 0) 1))", "line 5: division by zero"),
        (BOUNDED + "(assert (<= X_0 1e999))", "line 5: the bound 1e999 is beyond the range of float64"),
        (BOUNDED + "(assert (< X_0 1e999))", "line 5: the number 1e999 is beyond the range of float64"),
        (BOUNDED + "(assert (<= (* X_0 1e-300) 1e300))", "line 5: a number is beyond the range of float64"),
        (BOUNDED + "(assert (<= X_7 1))", "X_7 is not declared"),
        (BOUNDED + "(assert (not (<= X_0 1) (<= X_0 2)))", "(not ...) has 2 operands"),
        (BOUNDED + "(assert (<= X_0))", "line 5: cannot use (<= ...)"),
        (BOUNDED + "(assert (ite (<= X_0 1) true false))", "line 5: cannot use (ite ...)"),
        (BOUNDED + "(assert hello)", "line 5: expected a comparison such as (<= X_0 0.5), found hello"),
        (BOUNDED + "(assert (+ X_0 1))", "expected a comparison such as (<= X_0 0.5), found a term"),
        (BOUNDED + "(assert (<= (<= X_0 1) 1))", "needs numbers and variables, found a comparison"),
        (BOUNDED + "(assert (not (not (<= X_0 -1))))", "the lower bound 0.0 of X_0 is above its upper bound -1.0"),
        (BOUNDED + "(push 1)", "line 5: cannot use (push ...)"),
        (BOUNDED + '(echo "not closed)', 'line 5: a " that is not closed'),
        (BOUNDED + "(assert (<= X_0 1)", "line 5: the bracket opened here is not closed"),
        (BOUNDED + ")", "line 5: a closing bracket too many"),
        (BOUNDED + "hello", "expected an opening bracket, found hello"),
        ("(declare-const X_0 Real)", "declares 1 inputs X_i but the network has 2"),
        ("(declare-const X_2 Real)", "declares X_2 but the network has 2 inputs"),
        ("(declare-const Z Real)", "expected the declaration of a variable"),
        (BOUNDED + "(assert " + "(and true " * 50_000 + "true" + ")" * 50_001, "nested too deeply"),
        (BOUNDED + "(assert (or (<= X_0 -1) (>= X_0 2)))", "of X_0 is above its upper bound"),
    ],
)
def test_an_error_names_the_line_or_the_input(text, told):
    with pytest.raises(InputError) as caught:
        boxes(text)
    assert str(caught.value).startswith("p.vnnlib: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
