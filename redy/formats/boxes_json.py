"""Boxes as JSON: `{"lower", "upper"}`, `{"center", "radius"}` with an optional `clip`, or `[lower, upper]`.

Numbers are read as the decimals that they are. A bound is the float64 nearest to its decimal, and `center - radius` is
taken exactly before it is rounded once, so that center 0.3 and radius 0.1 give the same box as lower 0.2 and upper 0.4.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from math import prod
from typing import Never

import numpy as np

from redy.errors import InputError
from redy.model.box import Array, Box

FIELDS = ("lower", "upper", "center", "radius", "clip")
MOST_AXES = 64  # as many as numpy's arrays have
Parts = Mapping[str, tuple[int, ...]]
"""Input name -> the shape of one sample of it."""
BOUNDS, BALL = {"lower", "upper"}, {"center", "radius"}


def boxes_from_json(text: str, where: str, shape: tuple[int, ...], parts: Parts | None = None) -> list[Box]:
    """The boxes of one JSON text: a single box, or a list of them.

    Args:
        text: the JSON text.
        where: what errors call the text, such as its path.
        shape: the shape of one input sample.
        parts: the inputs of the file by name, where the sample is all of them flattened, one after the other.

    Raises:
        InputError: the text is not JSON, or not a box of this shape; the place in it is named.
    """
    value = _decode(text, where)
    if not isinstance(value, list) or _is_interval(value):
        return [_whole(value, where, shape, parts or {})]
    if not value:
        raise InputError(f"{where}: the list of boxes is empty; it must hold a box")
    if lists := [number for number, item in enumerate(value) if isinstance(item, list)]:
        # Two lists could be two intervals, the two bounds, or a pair of bounds for each of two inputs.
        raise InputError(f'{where}: box {lists[0]}: is a list; write {{"lower": [...], "upper": [...]}}')
    return [_whole(item, f"{where}: box {number}", shape, parts or {}) for number, item in enumerate(value)]


def boxes_from_json_lines(text: str, where: str, shape: tuple[int, ...], parts: Parts | None = None) -> list[Box]:
    """The boxes of JSON lines, one a line; blank lines count for nothing. Arguments and errors as `boxes_from_json`."""
    boxes = []
    # Only newlines separate: other characters that Unicode calls line ends may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{where}: line {number}"
            boxes.append(_whole(_decode(line, place), place, shape, parts or {}))
    return boxes


def _whole(value: object, where: str, shape: tuple[int, ...], parts: Parts) -> Box:
    """A box of the whole input, or one box for each of its parts, by name."""
    if not parts or not isinstance(value, dict) or not (set(value) & set(parts)):
        return _box(value, where, shape)
    if unknown := [name for name in value if name not in parts]:
        raise InputError(f"{where}: no input is called {unknown[0]!r}; the inputs are {', '.join(parts)}")
    if missing := [name for name in parts if name not in value]:
        raise InputError(f"{where}: gives no box for input {missing[0]!r}; give one for each of {', '.join(parts)}")
    boxes = [_box(value[name], f"{where}: input {name}", part) for name, part in parts.items()]
    lower, upper = (np.concatenate([getattr(box, end).ravel() for box in boxes]) for end in ("lower", "upper"))
    return Box(lower.reshape(shape), upper.reshape(shape))


def _decode(text: str, where: str) -> object:
    def refuse_constant(name: str) -> Never:
        raise InputError(f"{where}: {name} is not a finite number; every bound must be finite")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            twice = next(name for name, _ in pairs if [other for other, _ in pairs].count(name) > 1)
            raise InputError(f"{where}: field {twice} is given twice; leave one")
        return fields

    try:
        decoded: object = json.loads(
            text, parse_float=Decimal, parse_int=Decimal, parse_constant=refuse_constant, object_pairs_hook=unique
        )
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: is not JSON ({error.msg} at line {error.lineno}, column {error.colno})") from error
    except RecursionError as error:
        raise InputError(f"{where}: is nested too deeply for a box") from error
    return decoded


def _is_interval(value: list[object]) -> bool:
    return len(value) == 2 and all(isinstance(item, Decimal) for item in value)


def _box(value: object, where: str, shape: tuple[int, ...]) -> Box:
    if isinstance(value, list) and _is_interval(value):
        value = {"lower": value[0], "upper": value[1]}
    if not isinstance(value, dict):
        raise InputError(f'{where}: is not a box; write {{"lower": [...], "upper": [...]}} or [lower, upper]')
    if unknown := [name for name in value if name not in FIELDS]:
        raise InputError(f"{where}: unknown field {unknown[0]}; a box has the fields {', '.join(FIELDS)}")
    given = set(value)
    if given == BOUNDS:
        lower = _numbers(value["lower"], f"{where}: field lower", shape)
        upper = _numbers(value["upper"], f"{where}: field upper", shape)
    elif given - {"clip"} == BALL:
        lower, upper = _ball(value, where, shape)
    else:
        named = ", ".join(name for name in FIELDS if name in given) or "none"
        raise InputError(
            f"{where}: needs the fields lower and upper, or center and radius (clip optional); has {named}"
        )
    return _ordered(lower, upper, where, shape)


def _ball(value: dict[str, object], where: str, shape: tuple[int, ...]) -> tuple[list[Decimal], list[Decimal]]:
    """center - radius and center + radius, cut to clip; exact up to the one rounding when they become float64."""
    center = _numbers(value["center"], f"{where}: field center", shape)
    radius = _numbers(value["radius"], f"{where}: field radius", shape)
    if negative := [index for index, number in enumerate(radius) if number < 0]:
        raise InputError(f"{where}: field radius: element {negative[0]} is negative; a radius is at least 0")
    lower: list[Decimal] = []
    upper: list[Decimal] = []
    low, high = _clip(value.get("clip"), where, shape)
    for c, r, at_least, at_most in zip(center, radius, low, high, strict=True):
        exact_center, exact_radius = _exact(c), _exact(r)
        lower.append(max(_nearest(exact_center - exact_radius), at_least))
        upper.append(min(_nearest(exact_center + exact_radius), at_most))
    return lower, upper


def _clip(value: object, where: str, shape: tuple[int, ...]) -> tuple[list[Decimal], list[Decimal]]:
    size = prod(shape)
    if value is None:
        return [Decimal("-Infinity")] * size, [Decimal("Infinity")] * size
    if not (isinstance(value, list) and len(value) == 2):
        raise InputError(f"{where}: field clip: must be [lowest, highest]")
    low = _numbers(value[0], f"{where}: field clip: lowest", shape)
    high = _numbers(value[1], f"{where}: field clip: highest", shape)
    return low, high


def _numbers(value: object, where: str, shape: tuple[int, ...]) -> list[Decimal]:
    """The numbers of a field in C order: one for all inputs, a flat list, or nested lists shaped like the input."""
    found: list[Decimal] = []
    found_shape = _collect(value, (), found, where)
    size = prod(shape)
    if found_shape == ():
        return found * size
    # A leading 1 is the batch axis of networks whose batch is fixed.
    if found_shape in ((size,), shape, (1, *shape)):
        return found
    counts = "x".join(map(str, found_shape))
    wanted = "x".join(map(str, shape))
    flat = f" (flat: {size})" if len(shape) > 1 else ""
    raise InputError(
        f"{where}: holds {counts} numbers but the input has {wanted}{flat}; give one number for all, or one each"
    )


def _collect(value: object, place: tuple[int, ...], found: list[Decimal], where: str) -> tuple[int, ...]:
    """Append the numbers of nested lists to `found`; their common shape."""
    if len(place) > MOST_AXES:
        raise InputError(f"{where}: is nested too deeply for a box")
    if isinstance(value, Decimal):
        if not np.isfinite(float(value)):
            raise InputError(
                f"{where}: {_element(place)}{value} is beyond the range of float64; every bound must be finite"
            )
        found.append(value)
        return ()
    if not isinstance(value, list):
        raise InputError(f"{where}: {_element(place)}{_shown(value)} is not a number")
    inner = {_collect(item, (*place, index), found, where) for index, item in enumerate(value)}
    if len(inner) > 1:
        raise InputError(f"{where}: {_element(place)}the lists in it differ in length; nest them like the input")
    return (len(value), *(inner.pop() if inner else ()))


def _element(place: tuple[int, ...]) -> str:
    return f"element {', '.join(map(str, place))}: " if place else ""


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _exact(number: Decimal) -> Fraction:
    # A decimal below the least float64 is as good as zero, and its fraction would have a billion digits.
    return Fraction(number) if number.adjusted() > -400 else Fraction(0)


def _nearest(number: Fraction) -> Decimal:
    """The float64 nearest to `number`, as a decimal; infinite where float64 ends."""
    try:
        return Decimal(number.numerator / number.denominator)
    except OverflowError:
        return Decimal("Infinity") if number > 0 else Decimal("-Infinity")


def _ordered(lower: Sequence[Decimal], upper: Sequence[Decimal], where: str, shape: tuple[int, ...]) -> Box:
    low: Array = np.array([float(number) for number in lower], dtype=np.float64)
    high: Array = np.array([float(number) for number in upper], dtype=np.float64)
    if (infinite := np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))).size:
        raise InputError(f"{where}: the bounds of element {infinite[0]} leave the range of float64")
    if (crossed := np.flatnonzero(low > high)).size:
        index = int(crossed[0])
        raise InputError(f"{where}: element {index}: lower bound {low[index]} is above upper bound {high[index]}")
    return Box(low.reshape(shape), high.reshape(shape))
