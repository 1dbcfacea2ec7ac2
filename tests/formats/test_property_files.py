"""Properties from VNN-LIB files: the unsafe set is the one that the assertions describe."""

from __future__ import annotations

import itertools
import operator
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.errors import InputError
from redy.formats.properties import read_property
from redy.formats.vnnlib import property_from_vnnlib
from redy.model import Property

DECLARED = "".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1"))
BOUNDED = DECLARED + "(assert (<= -2 X_0 2))(assert (<= -2 X_1 2))"
COMPARE = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt, "=": operator.eq}


def read(text: str) -> Property:
    return property_from_vnnlib(text, "p.vnnlib", (2,), 2, "p.vnnlib")


def unsafe(found: Property, values: dict[str, int]) -> bool:
    x, y = np.array([values["X_0"], values["X_1"]], float), np.array([values["Y_0"], values["Y_1"]], float)
    return any(conjunction.met_by(x, y) for conjunction in found)


def truth(text: str, values: dict[str, int]) -> bool:
    """What the text of one formula says, by a reader of its own."""
    stack: list[list] = [[]]
    for piece in re.findall(r"[()]|[^\s()]+", text):
        if piece == "(":
            stack.append([])
        elif piece == ")":
            form = stack.pop()
            stack[-1].append(meaning(*form))
        else:
            known = {"true": True, "false": False, **values}
            stack[-1].append(known.get(piece, piece) if not re.fullmatch(r"-?\d+", piece) else Fraction(piece))
    return stack[0][0]


def meaning(head, *parts):
    if head in COMPARE:
        return all(COMPARE[head](a, b) for a, b in itertools.pairwise(parts))
    if head in ("and", "or"):
        return (all if head == "and" else any)(parts)
    if head == "not":
        return not parts[0]
    if head == "=>":
        return not parts[0] or parts[1]
    if head == "distinct":
        return parts[0] != parts[1]
    if head == "-" and len(parts) == 1:
        return -parts[0]
    return {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}[head](*parts)


names = st.sampled_from(["X_0", "X_1", "Y_0", "Y_1"])
numbers = st.integers(-3, 3).map(str)
terms = st.one_of(
    names,
    numbers,
    st.builds("(* {} {})".format, numbers, names),
    st.builds("(- {} (+ {} {}))".format, names, names, numbers),
    st.builds("(/ (- {}) 2)".format, names),
)
comparisons = st.one_of(
    st.builds("({} {} {})".format, st.sampled_from([*COMPARE, "distinct"]), terms, terms),
    st.builds("({} {} {} {})".format, st.sampled_from([*COMPARE]), terms, terms, terms),
    st.sampled_from(["true", "false"]),
)
formulas = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"(and {' '.join(parts)})"),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"(or {' '.join(parts)})"),
        inner.map("(not {})".format),
        st.builds("(=> {} {})".format, inner, inner),
    ),
    max_leaves=8,
)
points = st.lists(
    st.fixed_dictionaries({name: st.integers(-3, 3) for name in ("X_0", "X_1", "Y_0", "Y_1")}), max_size=9
)


@settings(max_examples=300, deadline=None)
@given(st.lists(formulas, max_size=3), points)
def test_a_point_is_unsafe_exactly_where_all_assertions_hold(assertions, found):
    property_ = read(BOUNDED + "".join(f"(assert {text})" for text in assertions))
    for values in found:
        inside = abs(values["X_0"]) <= 2 and abs(values["X_1"]) <= 2
        assert unsafe(property_, values) == (inside and all(truth(text, values) for text in assertions))


def test_a_strict_bound_of_an_input_is_a_constraint_besides():
    [conjunction] = read(BOUNDED + "(assert (< X_0 1))(assert (>= Y_0 Y_1))")
    assert conjunction.box.upper.tolist() == [1, 2]
    assert not conjunction.met_by(np.array([1.0, 0]), np.array([1.0, 0]))
    assert conjunction.met_by(np.array([np.nextafter(1, 0), 0]), np.array([1.0, 0]))


def test_disjunctions_of_outputs_do_not_multiply():
    text = "".join(f"(assert (or (<= Y_0 {i}) (>= Y_1 {i})))" for i in range(40))
    assert len(read(BOUNDED + text).conjunctions) < 40**2
    [conjunction] = read(BOUNDED + "(assert (or " + "".join(f"(<= Y_0 {i})" for i in range(100)) + "))")
    assert conjunction.constants.tolist() == [-99]


def test_too_many_conjunctions_are_refused():
    text = "".join(f"(assert (or (<= Y_0 (* {i} Y_1)) (<= (* {i} X_0) Y_1)))" for i in range(2, 40))
    with pytest.raises(InputError, match="its disjunctions give more than 250000 conjunctions; split it"):
        read(BOUNDED + text)


def test_an_output_that_the_network_lacks_is_named(tmp_path):
    path = tmp_path / "p.vnnlib"
    path.write_text(BOUNDED + "\n(declare-const Y_2 Real)")
    with pytest.raises(InputError, match=r"p\.vnnlib: line 2: declares Y_2 but the network has 2 outputs"):
        read_property(path, (2,), 2)
