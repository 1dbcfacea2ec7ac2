"""Linear constraints on inputs and outputs, joined by and, or and not, and their disjunctive normal form.

A variable is a whole number: input i is i, output j is -1 - j. Numbers are rationals until a bound of one variable, or
a coefficient of a constraint, becomes the float64 nearest to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf
from typing import NamedTuple

from redy.errors import InputError

MOST = 250_000
"""Conjunctions that a normal form may have."""
CONSTANT = None
Terms = dict[int | None, Fraction]
"""Variable, or `CONSTANT` -> coefficient."""


class Bound(NamedTuple):
    """variable <= value or, if not `upper`, variable >= value; < or > if strict."""

    variable: int
    upper: bool
    value: float
    strict: bool


class Row(NamedTuple):
    """Sum of coefficient * variable + constant <= 0, or < 0 if strict; at least two variables."""

    terms: tuple[tuple[int, float], ...]
    constant: float
    strict: bool


class Not(NamedTuple):
    """The formula does not hold."""

    formula: Formula


class All(NamedTuple):
    """Every part holds; without parts: true."""

    parts: tuple[Formula, ...]


class Any(NamedTuple):
    """Some part holds; without parts: false."""

    parts: tuple[Formula, ...]


Formula = Bound | Row | Not | All | Any
TRUE, FALSE = All(()), Any(())


def compare(relation: str, left: Terms, right: Terms) -> Formula:
    """left relation right, for <=, <, >=, >, = or distinct.

    Raises:
        InputError: a number is beyond the range of float64.
    """
    if relation in {">=", ">"}:
        return compare("<=" if relation == ">=" else "<", right, left)
    if relation == "=":
        return All((compare("<=", left, right), compare("<=", right, left)))
    if relation == "distinct":
        return Any((compare("<", left, right), compare("<", right, left)))
    apart = total(left, right, Fraction(-1))
    constant, strict = apart.pop(CONSTANT, Fraction(0)), relation == "<"
    if not apart:
        return TRUE if constant < 0 or (constant == 0 and not strict) else FALSE
    if len(apart) == 1:
        [(variable, factor)] = apart.items()
        return Bound(_index(variable), factor > 0, nearest(-constant / factor), strict)
    terms = tuple(sorted((_index(variable), nearest(factor)) for variable, factor in apart.items()))
    return Row(terms, nearest(constant), strict)


def total(left: Terms, right: Terms, factor: Fraction) -> Terms:
    """left + factor * right; terms that cancel are left out."""
    result = dict(left)
    for variable, value in right.items():
        result[variable] = result.get(variable, Fraction(0)) + factor * value
    return {variable: value for variable, value in result.items() if value}


def nearest(value: Fraction) -> float:
    """The float64 nearest to a rational.

    Raises:
        InputError: it is beyond the range of float64.
    """
    try:
        return float(value)
    except OverflowError as error:
        raise InputError("a number is beyond the range of float64; give a finite one") from error


def _index(variable: int | None) -> int:
    assert variable is not None
    return variable


@dataclass(slots=True)
class Cube:
    """A conjunction: the tightest bounds of single variables, and the constraints on several.

    Attributes:
        bounds: variable -> (lower, upper, whether lower is strict, whether upper is strict).
        rows: the other constraints, in order, each once.
    """

    bounds: dict[int, tuple[float, float, bool, bool]] = field(default_factory=dict)
    rows: dict[Row, None] = field(default_factory=dict)

    def add(self, leaf: Bound | Row) -> None:
        """Both hold."""
        if isinstance(leaf, Row):
            self.rows[leaf] = None
        elif leaf.upper:
            self._cut(leaf.variable, (-inf, leaf.value, False, leaf.strict))
        else:
            self._cut(leaf.variable, (leaf.value, inf, leaf.strict, False))

    def join(self, other: Cube) -> None:
        """Both hold."""
        for variable, interval in other.bounds.items():
            self._cut(variable, interval)
        self.rows |= other.rows

    def _cut(self, variable: int, interval: tuple[float, float, bool, bool]) -> None:
        found = self.bounds.get(variable)
        if found is not None:
            low, high = max(found, interval, key=_lower_end), min(found, interval, key=_upper_end)
            interval = (low[0], high[1], low[2], high[3])
        self.bounds[variable] = interval

    def copy(self) -> Cube:
        """A cube of its own."""
        return Cube(dict(self.bounds), dict(self.rows))

    @property
    def crossed(self) -> int | None:
        """A variable whose lower bound is above its upper bound."""
        return next((variable for variable, (low, high, _, _) in self.bounds.items() if low > high), None)

    @property
    def side(self) -> tuple[int, bool] | None:
        """The variable, and whether its upper side, if the cube bounds that side alone."""
        if self.rows or len(self.bounds) != 1:
            return None
        [(variable, (low, high, _, _))] = self.bounds.items()
        return None if low > -inf and high < inf else (variable, high < inf)

    @property
    def key(self) -> object:
        """Equal for equal cubes."""
        return (tuple(sorted(self.bounds.items())), frozenset(self.rows))


def _lower_end(interval: tuple[float, float, bool, bool]) -> tuple[float, bool]:
    return interval[0], interval[2]


def _upper_end(interval: tuple[float, float, bool, bool]) -> tuple[float, bool]:
    return interval[1], not interval[3]


@dataclass(frozen=True, slots=True)
class NormalForm:
    """The formulas hold together exactly where `common` and one of `choices` hold.

    `crossed` is a contradictory conjunction that was left out, if there was one.
    """

    common: Cube
    choices: list[Cube]
    crossed: Cube | None


def normal_form(formulas: Iterable[Formula], keep: Callable[[Bound | Row], bool]) -> NormalForm:
    """The disjunctive normal form of formulas that hold together; equal conjunctions come once.

    Args:
        formulas: the formulas.
        keep: what is no longer asked of a leaf for which this is false; so the form is a superset (a projection).

    Raises:
        InputError: it has more than `MOST` conjunctions.
    """
    work = _Expansion(keep)
    common, choices = work.split(list(formulas), holds=True)
    if common.crossed is not None:
        work.crossed = common
        return NormalForm(Cube(), [], common)
    return NormalForm(common, work.product(choices), work.crossed)


class _Expansion:
    """Expands formulas into cubes; contradictory cubes are left out."""

    def __init__(self, keep: Callable[[Bound | Row], bool]) -> None:
        self._keep = keep
        self.crossed: Cube | None = None

    def cubes(self, formula: Formula, *, holds: bool) -> list[Cube]:
        """The cubes of a formula, or of its negation."""
        if isinstance(formula, Not):
            return self.cubes(formula.formula, holds=not holds)
        if isinstance(formula, Bound | Row):
            cube = Cube()
            self._add(cube, formula, holds)
            return [cube]
        if isinstance(formula, All) == holds:
            common, choices = self.split(formula.parts, holds=holds)
            if common.crossed is not None:
                self.crossed = common
                return []
            if not choices:
                return [common]
            return self.product([[common], *choices])
        return _distinct(cube for part in formula.parts for cube in self.cubes(part, holds=holds))

    def split(self, parts: Iterable[Formula], *, holds: bool) -> tuple[Cube, list[list[Cube]]]:
        """What holds in any case, and the disjunctions besides, for parts that hold (or fail) together."""
        common, choices = Cube(), []
        for part in parts:
            if isinstance(part, Bound | Row):
                self._add(common, part, holds)
                continue
            found = self.cubes(part, holds=holds)
            if len(found) == 1:
                common.join(found[0])
            else:
                choices.append(found)
        return common, choices

    def _add(self, cube: Cube, leaf: Bound | Row, holds: bool) -> None:
        if self._keep(leaf):
            cube.add(leaf if holds else _negated(leaf))

    def product(self, choices: list[list[Cube]]) -> list[Cube]:
        """The cubes that hold where one of each list does."""
        result = [Cube()]
        for others in choices:
            if len(result) * len(others) > 4 * MOST:
                raise _too_many()
            result = _distinct(self._joined(result, others))
        return result

    def _joined(self, some: list[Cube], others: list[Cube]) -> Iterator[Cube]:
        for one in some:
            for other in others:
                cube = one.copy()
                cube.join(other)
                if cube.crossed is None:
                    yield cube
                else:
                    self.crossed = cube


def _distinct(cubes: Iterable[Cube]) -> list[Cube]:
    """The same disjunction: equal cubes once, of cubes that bound one side of one variable the loosest, in order."""
    found: dict[object, Cube] = {}
    for cube in cubes:
        if not cube.bounds and not cube.rows:
            return [cube]
        side = cube.side
        known = found.get(side) if side is not None else None
        if known is None or _looser(cube, known):
            found[cube.key if side is None else side] = cube
        if len(found) > MOST:
            raise _too_many()
    return list(found.values())


def _looser(cube: Cube, known: Cube) -> bool:
    """Whether the first of two cubes that bound the same side of one variable says less."""
    [one], [other] = cube.bounds.values(), known.bounds.values()
    return _lower_end(one) <= _lower_end(other) and _upper_end(one) >= _upper_end(other)


def _too_many() -> InputError:
    return InputError(f"its disjunctions give more than {MOST} conjunctions; split it into several files")


def _negated(leaf: Bound | Row) -> Bound | Row:
    if isinstance(leaf, Bound):
        return Bound(leaf.variable, not leaf.upper, leaf.value, not leaf.strict)
    return Row(tuple((variable, -factor) for variable, factor in leaf.terms), -leaf.constant, not leaf.strict)
