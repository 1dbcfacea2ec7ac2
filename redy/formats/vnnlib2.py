"""The assertions of a VNN-LIB 2.0 text, read by the package `vnnlib`, as constraints.

The elements of the declared inputs, one after the other in C order, are the network's inputs, and so the outputs. The
package checks syntax, types and indices. Numbers are read from their spelling, as rationals.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING

from redy.errors import InputError
from redy.formats.constraints import CONSTANT, All, Any, Formula, Terms, compare, total
from redy.formats.smtlib import Assertions, number

if TYPE_CHECKING:
    import vnnlib


_REAL = re.compile(r"(\(\s*declare-(?:input|output|hidden)\s+\S+\s+)Real\b")
"""Version 1.0.2 of the package refuses some arithmetic on the type Real; the type does not matter here."""


def read_assertions_2(text: str, outputs: int | None) -> Assertions:
    """The assertions of a text of version 2.0.

    Args:
        text: the file.
        outputs: the number of the network's outputs, if that is known.

    Raises:
        InputError: the package is missing, the text is wrong, or it is not about inputs and outputs of one network.
    """
    try:
        import vnnlib  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise InputError("is VNN-LIB 2.0, which needs the package vnnlib: pip install 'redy[vnnlib]'") from error
    try:
        query = vnnlib.parse_query_string(text)
    except vnnlib.VNNLibException:
        try:
            query = vnnlib.parse_query_string(_REAL.sub(r"\1float64", text))
        except vnnlib.VNNLibException as error:
            raise InputError(_told(str(error))) from error
    if len(query.networks) != 1:
        raise InputError(f"is about {len(query.networks)} networks; give a property of one")
    return _Reader(query.networks[0], outputs).read(query)


def _told(text: str) -> str:
    """The first error of the package in one line."""
    try:
        first = json.loads(text)["errors"][0]
        return f"line {first['line']}: {first['message']} ({first['offendingSymbol']}): {first['hint']}"
    except (ValueError, KeyError, IndexError, TypeError):
        return " ".join(text.split())[:300]


class _Reader:
    def __init__(self, network: vnnlib.Network, outputs: int | None) -> None:
        if network.hidden:
            raise InputError(
                f"declares {network.hidden[0].name} inside the network; only inputs and outputs can be used"
            )
        self._places: dict[str, tuple[int, tuple[int, ...], bool]] = {}
        self.sizes = []
        for kind, declared in (("input", network.inputs), ("output", network.outputs)):
            size = 0
            for port in declared:
                self._places[port.name] = size, tuple(port.shape), kind == "input"
                size += prod(port.shape)
            self.sizes.append(size)
        if outputs is not None and self.sizes[1] != outputs:
            raise InputError(f"declares {self.sizes[1]} outputs but the network has {outputs}")

    def read(self, query: vnnlib.Query) -> Assertions:
        """All assertions of the file."""
        return Assertions([self._formula(assertion.expr) for assertion in query.assertions], self.sizes[0])

    def _formula(self, item: vnnlib.BoolExpr) -> Formula:
        import vnnlib  # noqa: PLC0415

        if isinstance(item, vnnlib.And | vnnlib.Or):
            parts = tuple(self._formula(part) for part in item.args)
            return All(parts) if isinstance(item, vnnlib.And) else Any(parts)
        relations: dict[type[vnnlib.BoolExpr], str] = {
            vnnlib.LessEqual: "<=",
            vnnlib.LessThan: "<",
            vnnlib.GreaterEqual: ">=",
            vnnlib.GreaterThan: ">",
            vnnlib.Equal: "=",
            vnnlib.NotEqual: "distinct",
        }
        if isinstance(item, vnnlib.Comparison) and type(item) in relations:
            return compare(relations[type(item)], self._terms(item.lhs), self._terms(item.rhs))
        raise InputError(f"cannot use {str(item)[:60]}; expected and, or, or a comparison")

    def _terms(self, item: vnnlib.ArithExpr) -> Terms:
        import vnnlib  # noqa: PLC0415

        if isinstance(item, vnnlib.Var):
            return {self._variable(item): Fraction(1)}
        if isinstance(item, vnnlib.Literal):
            value = number(item.lexeme)
            if value is None:
                raise InputError(f"the number {item.lexeme[:40]} is beyond the range of float64")
            return {CONSTANT: value} if value else {}
        if isinstance(item, vnnlib.Negate):
            return total({}, self._terms(item.expr), Fraction(-1))
        if isinstance(item, vnnlib.Plus):
            result: Terms = {}
            for part in item.args:
                result = total(result, self._terms(part), Fraction(1))
            return result
        if isinstance(item, vnnlib.Minus):
            result = self._terms(item.head)
            for part in item.rest:
                result = total(result, self._terms(part), Fraction(-1))
            return result
        if isinstance(item, vnnlib.Multiply):
            result = {CONSTANT: Fraction(1)}
            for factor in map(self._terms, item.args):
                one, other = (result, factor) if factor.keys() <= {CONSTANT} else (factor, result)
                if not other.keys() <= {CONSTANT}:
                    raise InputError(f"{str(item)[:60]} of two variables is not linear")
                result = total({}, one, other.get(CONSTANT, Fraction(0)))
            return result
        raise InputError(f"cannot use {str(item)[:60]}; expected a linear term")

    def _variable(self, item: vnnlib.Var) -> int:
        start, shape, is_input = self._places[item.name]
        place = 0
        for index, size in zip(item.indices, shape, strict=True):
            place = place * size + index
        return start + place if is_input else -1 - start - place
