"""The assertions of a VNN-LIB 1.0 text (https://www.vnnlib.org, SMT-LIB syntax) as constraints.

Inputs are X_0, X_1, ... and outputs Y_0, Y_1, ... in C order, all outputs one after the other. An assertion joins
comparisons of linear terms by `and`, `or`, `not` and `=>`; all assertions hold together. Every bracket is read into its
meaning as soon as it closes, so that a file of many thousand boxes needs no tree of its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from redy.errors import InputError
from redy.formats.constraints import CONSTANT, FALSE, TRUE, All, Any, Bound, Formula, Not, Row, Terms, compare, total

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
# Large files consist of comparisons of one variable with a number, so that each of these is one token.
_TOKEN = re.compile(
    rf"\(\s*(?P<relation><=|>=)\s+(?P<letter>[XY])_(?P<index>\d{{1,18}})\s+(?P<number>{_NUMBER})\s*\)"
    r"|(?P<space>\s+|;[^\n]*)|(?P<bracket>[()])|(?P<atom>\|[^|]*\||\"[^\"]*\"|[^\s();|\"]+)|(?P<fault>.)"
)
NUMBER = re.compile(_NUMBER)
_VARIABLE = re.compile(r"([XY])_(\d{1,18})")
_COMPARISONS = {"<=", ">=", "<", ">", "=", "distinct"}
_WITHOUT_EFFECT = {"set-logic", "set-info", "set-option", "check-sat", "get-model", "get-value", "get-info", "echo"}


@dataclass(frozen=True, slots=True)
class Assertions:
    """What a file asks of inputs and outputs together.

    Attributes:
        formulas: they hold together.
        inputs: the number of declared inputs.
    """

    formulas: list[Formula]
    inputs: int


@dataclass(slots=True)
class _Form:
    """A bracketed list: where it opens, and what was read in it."""

    start: int
    items: list[str | Terms | Formula | _Form] = field(default_factory=list)

    @property
    def head(self) -> str:
        """The name with which the list starts, else an empty text."""
        return self.items[0] if self.items and isinstance(self.items[0], str) else ""


_Item = str | Terms | Formula | _Form


def read_assertions(text: str, inputs: int, outputs: int | None) -> Assertions:
    """The assertions of a text.

    Args:
        text: the file.
        inputs: the number of the network's inputs.
        outputs: the number of its outputs, if that is known.

    Raises:
        InputError: the syntax is wrong, a term is not linear, or the variables are not those of the network; the line
            is named.
    """
    return _Reader(text, inputs, outputs).read()


class _Reader:
    def __init__(self, text: str, inputs: int, outputs: int | None) -> None:
        self._text = text
        self._sizes = {"X": inputs, "Y": outputs}
        self._declared: set[int] = set()
        self._formulas: list[Formula] = []
        self._stack = [_Form(0)]

    def read(self) -> Assertions:
        """The assertions of the text, up to (exit)."""
        for token in _TOKEN.finditer(self._text):
            kind = token.lastgroup
            if kind == "space":
                continue
            if kind == "number":
                self._add_bound(token)
            elif kind == "atom":
                self._stack[-1].items.append(token[0])
            elif kind == "bracket" and token[0] == "(":
                self._stack.append(_Form(token.start()))
            elif kind == "bracket":
                if len(self._stack) == 1:
                    raise self._fault(token.start(), "a closing bracket too many")
                if self._close():
                    break
            else:
                raise self._fault(token.start(), f"a {token[0]} that is not closed")
            if len(self._stack) == 1 and self._stack[0].items:
                raise self._fault(token.start(), f"expected an opening bracket, found {token[0][:40]}")
        if len(self._stack) > 1:
            raise self._fault(self._stack[-1].start, "the bracket opened here is not closed")
        return Assertions(self._formulas, sum(variable >= 0 for variable in self._declared))

    def _fault(self, place: int, text: str) -> InputError:
        line = self._text.count("\n", 0, place) + 1
        return InputError(f"line {line}: {text}")

    def _add_bound(self, token: re.Match[str]) -> None:
        """A comparison of one variable with a number, which is one token."""
        variable = self._variable(token["letter"], token["index"], token.start())
        value = float(token["number"])
        if value in {float("inf"), float("-inf")}:
            raise self._fault(token.start(), f"the bound {token['number'][:40]} is beyond the range of float64")
        self._stack[-1].items.append(Bound(variable, token["relation"] == "<=", value, strict=False))

    def _close(self) -> bool:
        """Read the innermost list, which ends here; whether the file ends with it."""
        form = self._stack.pop()
        if len(self._stack) == 1:
            return self._command(form)
        inside = self._stack[1].head == "assert"
        self._stack[-1].items.append(self._meaning(form) if inside else form)
        return False

    def _command(self, form: _Form) -> bool:
        if form.head in {"declare-const", "declare-fun"}:
            self._declare(form)
        elif form.head == "assert" and len(form.items) == 2:
            self._formulas.append(self._formula(form, form.items[1]))
        elif form.head not in {*_WITHOUT_EFFECT, "exit"}:
            raise self._fault(
                form.start, f"cannot use ({form.head or '...'} ...); expected (declare-const ...) or (assert ...)"
            )
        return form.head == "exit"

    def _declare(self, form: _Form) -> None:
        name = form.items[1] if len(form.items) > 1 else None
        found = _VARIABLE.fullmatch(name) if isinstance(name, str) else None
        if found is None:
            raise self._fault(form.start, "expected the declaration of a variable X_i or Y_j")
        letter, index = found[1], int(found[2])
        size = self._sizes[letter]
        if size is not None and index >= size:
            kind = "inputs" if letter == "X" else "outputs"
            raise self._fault(
                form.start, f"declares {found[0]} but the network has {size} {kind} ({letter}_0 to {letter}_{size - 1})"
            )
        self._declared.add(index if letter == "X" else -1 - index)

    def _variable(self, letter: str, digits: str, place: int) -> int:
        index = int(digits)
        variable = index if letter == "X" else -1 - index
        if variable not in self._declared:
            name = f"{letter}_{index}"
            raise self._fault(place, f"{name} is not declared; declare it with (declare-const {name} Real)")
        return variable

    def _meaning(self, form: _Form) -> Formula | Terms:
        """What a list inside an assertion says."""
        head, operands = form.head, form.items[1:]
        if head in _COMPARISONS and len(operands) >= 2:
            return self._comparison(form, [self._terms(form, operand) for operand in operands])
        if head in {"+", "-", "*", "/"} and operands:
            return self._combined(form, [self._terms(form, operand) for operand in operands])
        if head in {"and", "or", "not", "=>"}:
            return self._joined(form, [self._formula(form, operand) for operand in operands])
        raise self._fault(
            form.start,
            f"cannot use ({head or '...'} ...); expected and, or, not, =>, <=, >=, <, > or = (two operands or more), "
            "or a linear term of +, -, * and /",
        )

    def _joined(self, form: _Form, parts: list[Formula]) -> Formula:
        if form.head in {"and", "or"}:
            if len(parts) == 1:
                return parts[0]
            return All(tuple(parts)) if form.head == "and" else Any(tuple(parts))
        if form.head == "not" and len(parts) == 1:
            return Not(parts[0])
        if form.head == "=>" and len(parts) == 2:
            return Any((Not(parts[0]), parts[1]))
        raise self._fault(form.start, f"({form.head} ...) has {len(parts)} operands")

    def _comparison(self, form: _Form, terms: list[Terms]) -> Formula:
        if form.head == "distinct" and len(terms) > 2:
            raise self._fault(form.start, "(distinct ...) of more than two terms; write one for each pair")
        try:
            parts = tuple(compare(form.head, left, right) for left, right in pairwise(terms))
        except InputError as error:
            raise self._fault(form.start, str(error)) from error
        return parts[0] if len(parts) == 1 else All(parts)

    def _combined(self, form: _Form, parts: list[Terms]) -> Terms:
        """A sum, difference, product or quotient of linear terms."""
        if form.head == "-" and len(parts) == 1:
            return total({}, parts[0], Fraction(-1))
        result = parts[0]
        for part in parts[1:]:
            if form.head in {"+", "-"}:
                result = total(result, part, Fraction(1 if form.head == "+" else -1))
                continue
            if form.head == "*" and result.keys() <= {CONSTANT}:
                result, part = part, result  # noqa: PLW2901 - a product is the same in either order.
            if not part.keys() <= {CONSTANT}:
                raise self._fault(form.start, f"({form.head} ...) of two variables is not linear; no box can hold it")
            factor = part.get(CONSTANT, Fraction(0))
            if form.head == "/" and not factor:
                raise self._fault(form.start, "division by zero")
            result = total({}, result, factor if form.head == "*" else 1 / factor)
        return result

    def _formula(self, form: _Form, item: _Item) -> Formula:
        if isinstance(item, Bound | Row | Not | All | Any):
            return item
        if item in ("true", "false"):
            return TRUE if item == "true" else FALSE
        found = item[:40] if isinstance(item, str) else "a term"
        raise self._fault(form.start, f"expected a comparison such as (<= X_0 0.5), found {found}")

    def _terms(self, form: _Form, item: _Item) -> Terms:
        if isinstance(item, dict):
            return item
        if not isinstance(item, str):
            raise self._fault(form.start, f"({form.head} ...) needs numbers and variables, found a comparison")
        if NUMBER.fullmatch(item):
            value = number(item)
            if value is None:
                raise self._fault(form.start, f"the number {item[:40]} is beyond the range of float64")
            return {CONSTANT: value} if value else {}
        if found := _VARIABLE.fullmatch(item):
            return {self._variable(found[1], found[2], form.start): Fraction(1)}
        raise self._fault(form.start, f"{item[:40]} is neither a number nor a variable X_i or Y_j")


def number(text: str) -> Fraction | None:
    """The value of a decimal; None where it is beyond the range of float64."""
    value = Decimal(text)
    # The fraction of a decimal far below the least float64 would have a billion digits; it is as good as zero.
    if value and value.adjusted() < -400:
        return Fraction(0)
    return Fraction(value) if not value or value.adjusted() < 309 else None


__all__ = ["Assertions", "number", "read_assertions"]
