"""The input constraints of a VNN-LIB 1.0 property as boxes (https://www.vnnlib.org, SMT-LIB syntax).

Inputs are X_0, X_1, ... in C order; constraints on outputs Y_j say nothing about the box and are passed over. Each
assertion is a comparison of one input with a number, or `and` and `or` of such; several assertions hold together. A
strict comparison is read as its closure. A bound is the float64 nearest to its decimal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import inf, isfinite, prod

import numpy as np

from redy.errors import InputError
from redy.model.box import Box

TOKEN = re.compile(r"\s+|;[^\n]*|(?P<bracket>[()])|(?P<atom>[^\s();]+)")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
INPUT, OUTPUT = re.compile(r"X_(\d{1,18})"), re.compile(r"Y_\d+")
REVERSED = {"<=": ">=", ">=": "<=", "<": ">", ">": "<", "=": "="}
MOST_BOXES = 100_000

Ranges = dict[int, tuple[float, float]]
"""Input index -> (lower, upper); an input that is not in it is free."""


@dataclass(frozen=True, slots=True)
class Atom:
    """A name or a number, and the line it stands on."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Form:
    """A bracketed list, and the line on which it opens."""

    line: int
    items: list[Atom | Form] = field(default_factory=list)

    @property
    def head(self) -> str:
        """The name with which the list starts, else an empty text."""
        first = self.items[0] if self.items else None
        return first.text if isinstance(first, Atom) else ""


def boxes_from_vnnlib(text: str, where: str, shape: tuple[int, ...]) -> list[Box]:
    """The boxes whose union is the set of inputs that the property admits, without repetition.

    Args:
        text: the property.
        where: what errors call it, such as its path.
        shape: the shape of one input sample; its elements are X_0, X_1, ... in C order.

    Raises:
        InputError: the syntax is wrong, a constraint is not one of a box, an input lacks a bound, or the inputs are not
            as many as the network's; the line or the input is named.
    """
    try:
        return _boxes(_alternatives(_parse(text), prod(shape)), shape)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except RecursionError as error:
        raise InputError(f"{where}: is nested too deeply for a box") from error


def _alternatives(forms: list[Form], size: int) -> list[Ranges]:
    """The union of ranges that all assertions admit together."""
    declared: set[int] = set()
    alternatives: list[Ranges] = [{}]
    for form in forms:
        if form.head in ("declare-const", "declare-fun"):
            declared |= _declared_input(form, size)
        elif form.head == "assert" and len(form.items) == 2:
            alternatives = _both(alternatives, _admitted(form.items[1], declared), form.line)
        else:
            raise _fault(form.line, f"expected (declare-const ...) or (assert ...), found ({form.head} ...)")
    if len(declared) != size:
        raise InputError(f"declares {len(declared)} inputs X_i but the network has {size}")
    return alternatives


def _fault(line: int, text: str) -> InputError:
    return InputError(f"line {line}: {text}")


def _parse(text: str) -> list[Form]:
    """The top-level forms of the text."""
    stack, line = [Form(0)], 1
    for token in TOKEN.finditer(text):
        if token["bracket"] == "(":
            stack.append(Form(line))
            stack[-2].items.append(stack[-1])
        elif token["bracket"] == ")":
            if len(stack) == 1:
                raise _fault(line, "a closing bracket too many")
            stack.pop()
        elif token["atom"]:
            stack[-1].items.append(Atom(token["atom"], line))
        line += token[0].count("\n")
    if len(stack) > 1:
        raise _fault(stack[-1].line, "the bracket opened here is not closed")
    for item in stack[0].items:
        if isinstance(item, Atom):
            raise _fault(item.line, f"expected an opening bracket, found {item.text[:40]}")
    return [item for item in stack[0].items if isinstance(item, Form)]


def _declared_input(form: Form, size: int) -> set[int]:
    name = form.items[1] if len(form.items) > 1 else None
    if isinstance(name, Atom) and (variable := INPUT.fullmatch(name.text)):
        if int(variable[1]) >= size:
            raise _fault(form.line, f"declares {name.text} but the network has {size} inputs (X_0 to X_{size - 1})")
        return {int(variable[1])}
    if isinstance(name, Atom) and OUTPUT.fullmatch(name.text):
        return set()
    raise _fault(form.line, "expected the declaration of a variable X_i or Y_j")


def _admitted(constraint: Atom | Form, declared: set[int]) -> list[Ranges]:
    """The union of ranges that a constraint admits; no entry means that it admits nothing."""
    if isinstance(constraint, Atom) or not constraint.items:
        raise _fault(constraint.line, "expected a comparison such as (<= X_0 0.5), or `and` or `or` of comparisons")
    if constraint.head == "and":
        result: list[Ranges] = [{}]
        for item in constraint.items[1:]:
            result = _both(result, _admitted(item, declared), item.line)
        return result
    if constraint.head == "or":
        return [ranges for item in constraint.items[1:] for ranges in _admitted(item, declared)]
    return [_comparison(constraint, declared)]


def _comparison(form: Form, declared: set[int]) -> Ranges:
    """(<= X_i number) and its kin, operands in either order; nothing for a comparison of outputs."""
    operands = form.items[1:]
    if form.head not in REVERSED or len(operands) != 2:
        raise _fault(form.line, f"cannot use ({form.head} ...); expected <=, >=, <, > or = with two operands")
    names = [name for operand in operands for name in _names(operand)]
    if names and all(OUTPUT.fullmatch(name) for name in names):
        return {}
    relation, (left, right) = form.head, operands
    if isinstance(right, Atom) and INPUT.fullmatch(right.text):
        relation, left, right = REVERSED[relation], right, left
    number = _number(right)
    variable = INPUT.fullmatch(left.text) if isinstance(left, Atom) else None
    if variable is None or number is None:
        raise _fault(form.line, "a box needs comparisons of one input X_i with a number; this one is another")
    if int(variable[1]) not in declared:
        raise _fault(form.line, f"{variable[0]} is not declared; declare it with (declare-const {variable[0]} Real)")
    if not isfinite(number):
        raise _fault(form.line, f"the bound of {variable[0]} is beyond the range of float64")
    return {int(variable[1]): (-inf if relation in ("<=", "<") else number, inf if relation in (">=", ">") else number)}


def _names(operand: Atom | Form) -> list[str]:
    """The variables in an operand."""
    if isinstance(operand, Atom):
        return [] if NUMBER.fullmatch(operand.text) else [operand.text]
    return [name for item in operand.items[1:] for name in _names(item)]


def _number(operand: Atom | Form) -> float | None:
    """A number, also in SMT-LIB's spelling (- 0.5) of a negative one; None for anything else."""
    if isinstance(operand, Atom):
        return float(operand.text) if NUMBER.fullmatch(operand.text) else None
    if operand.head == "-" and len(operand.items) == 2:
        inner = _number(operand.items[1])
        return None if inner is None else -inner
    return None


def _both(some: list[Ranges], others: list[Ranges], line: int) -> list[Ranges]:
    """The union of ranges that satisfy one of `some` and one of `others`."""
    if len(some) * len(others) > MOST_BOXES:
        raise _fault(line, f"the disjunctions give more than {MOST_BOXES} boxes; split the property")
    return [_intersection(one, other) for one in some for other in others]


def _intersection(one: Ranges, other: Ranges) -> Ranges:
    result = dict(one)
    for index, (lower, upper) in other.items():
        low, high = result.get(index, (-inf, inf))
        result[index] = (max(low, lower), min(high, upper))
    return result


def _boxes(alternatives: list[Ranges], shape: tuple[int, ...]) -> list[Box]:
    """The alternatives as boxes: contradictory ones left out as long as one is left, equal ones given once."""
    found: dict[Box, None] = {}
    contradiction = "its assertions admit no input"
    for ranges in alternatives:
        bounds = np.array([ranges.get(index, (-inf, inf)) for index in range(prod(shape))]).reshape(-1, 2)
        if crossed := [index for index, (lower, upper) in ranges.items() if lower > upper]:
            lower, upper = ranges[crossed[0]]
            contradiction = f"the lower bound {lower} of X_{crossed[0]} is above its upper bound {upper}"
            continue
        if (free := np.argwhere(~np.isfinite(bounds))).size:
            index, side = free[0]
            raise InputError(f"X_{index} has no {('lower', 'upper')[side]} bound; assert one")
        found[Box(bounds[:, 0].reshape(shape), bounds[:, 1].reshape(shape))] = None
    if not found:
        raise InputError(contradiction)
    return list(found)
