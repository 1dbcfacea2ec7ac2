"""VNN-LIB properties, as boxes of inputs and as unsafe sets (https://www.vnnlib.org; versions 1.0 and 2.0).

The assertions of a file say together what must not happen. Its boxes are what they leave of each input alone: the
smallest boxes that hold all inputs of each disjunct, whatever constraints on several inputs or on outputs say besides.
A strict bound of an input is read as its closure. A bound is the float64 nearest to its decimal or rational, and so is
a coefficient.
"""

from __future__ import annotations

import re
from math import inf, prod

import numpy as np

from redy.errors import InputError
from redy.formats.constraints import Bound, Cube, NormalForm, Row, normal_form
from redy.formats.smtlib import Assertions, read_assertions
from redy.formats.vnnlib2 import read_assertions_2
from redy.model.box import Array, Box
from redy.model.property import Conjunction, Property

VERSION_2 = re.compile(r"(\s+|;[^\n]*\n)*\(\s*vnnlib-version\s*<\s*2")
"""How a text of version 2.0 begins."""


def boxes_from_vnnlib(text: str, where: str, shape: tuple[int, ...]) -> list[Box]:
    """Boxes whose union holds all inputs that the property admits; equal boxes come once.

    Args:
        text: the property.
        where: what errors call it, such as its path.
        shape: the shape of one input sample; its elements are X_0, X_1, ... in C order.

    Raises:
        InputError: the syntax is wrong, an input lacks a bound, or the inputs are not as many as the network's; the
            line or the input is named.
    """
    try:
        found = _read(text, prod(shape), None)
        form = normal_form(found.formulas, lambda leaf: isinstance(leaf, Bound) and leaf.variable >= 0)
        boxes = _Boxes(form.common, shape)
        distinct = dict.fromkeys(boxes.cut(cube) for cube in form.choices if boxes.admits(cube))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except RecursionError as error:
        raise InputError(f"{where}: is nested too deeply for a box") from error
    if not distinct:
        raise InputError(f"{where}: {_contradiction(form, boxes)}")
    return list(distinct)


def property_from_vnnlib(text: str, where: str, input_shape: tuple[int, ...], outputs: int, name: str) -> Property:
    """The unsafe set that the assertions describe; see `redy.formats.properties.read_property`."""
    try:
        found = _read(text, prod(input_shape), outputs)
        form = normal_form(found.formulas, lambda _: True)
        boxes = _Boxes(form.common, input_shape)
        conjunctions = [_conjunction(boxes, form.common, cube, outputs) for cube in form.choices if boxes.admits(cube)]
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except RecursionError as error:
        raise InputError(f"{where}: is nested too deeply") from error
    return Property(tuple(conjunctions), name)


def _read(text: str, inputs: int, outputs: int | None) -> Assertions:
    found = read_assertions_2(text, outputs) if VERSION_2.match(text) else read_assertions(text, inputs, outputs)
    if found.inputs != inputs:
        raise InputError(f"declares {found.inputs} inputs X_i but the network has {inputs}")
    return found


class _Boxes:
    """Makes boxes of cubes, all of which lie in a common one; equal boxes are one object."""

    def __init__(self, common: Cube, shape: tuple[int, ...]) -> None:
        self._shape, size = shape, prod(shape)
        self.lower, self.upper = np.full(size, -inf), np.full(size, inf)
        for variable, (low, high, _, _) in common.bounds.items():
            if variable >= 0:
                self.lower[variable], self.upper[variable] = low, high
        self._known: dict[object, Box] = {}

    def crossed(self, cube: Cube) -> int | None:
        """An input of which the cube and the common box leave nothing."""
        for variable, (low, high, _, _) in cube.bounds.items():
            if variable >= 0 and max(low, self.lower[variable]) > min(high, self.upper[variable]):
                return variable
        return None

    def admits(self, cube: Cube) -> bool:
        """Whether some input lies in both."""
        return self.crossed(cube) is None

    def cut(self, cube: Cube) -> Box:
        """The common box cut to the cube."""
        changed = sorted((v, max(low, self.lower[v]), min(high, self.upper[v])) for v, low, high in _inputs(cube))
        key = tuple(entry for entry in changed if entry[1:] != (self.lower[entry[0]], self.upper[entry[0]]))
        if key not in self._known:
            lower, upper = self.lower.copy(), self.upper.copy()
            for variable, low, high in key:
                lower[variable], upper[variable] = low, high
            if (free := np.flatnonzero(~(np.isfinite(lower) & np.isfinite(upper)))).size:
                side = "upper" if np.isfinite(lower[free[0]]) else "lower"
                raise InputError(f"X_{free[0]} has no {side} bound; assert one")
            self._known[key] = Box(lower.reshape(self._shape), upper.reshape(self._shape))
        return self._known[key]


def _inputs(cube: Cube) -> list[tuple[int, float, float]]:
    return [(variable, low, high) for variable, (low, high, _, _) in cube.bounds.items() if variable >= 0]


def _contradiction(form: NormalForm, boxes: _Boxes) -> str:
    """Why no input is admitted."""
    for cube in (form.crossed, *form.choices):
        if cube is None:
            continue
        variable = cube.crossed if cube.crossed is not None else boxes.crossed(cube)
        if variable is not None:
            low, high, _, _ = cube.bounds[variable]
            low, high = max(low, boxes.lower[variable]), min(high, boxes.upper[variable])
            return f"the lower bound {low} of X_{variable} is above its upper bound {high}"
    return "its assertions admit no input"


def _conjunction(boxes: _Boxes, common: Cube, cube: Cube, outputs: int) -> Conjunction:
    """The common cube and another one together: a box, and rows for all that a box cannot say."""
    whole = Cube({v: b for v, b in common.bounds.items() if v < 0 or b[2] or b[3]}, dict(common.rows))
    whole.join(cube)
    rows = list(whole.rows)
    for variable, (low, high, above, below) in whole.bounds.items():
        if low > -inf and (variable < 0 or above):
            rows.append(Row(((variable, -1.0),), low, above))
        if high < inf and (variable < 0 or below):
            rows.append(Row(((variable, 1.0),), -high, below))
    box = boxes.cut(cube)
    on_inputs: Array = np.zeros((len(rows), box.size))
    on_outputs: Array = np.zeros((len(rows), outputs))
    for place, row in enumerate(rows):
        for variable, factor in row.terms:
            if variable >= 0:
                on_inputs[place, variable] = factor
            else:
                on_outputs[place, -1 - variable] = factor
    constants, strict = np.array([row.constant for row in rows]), np.array([row.strict for row in rows], dtype=np.bool_)
    return Conjunction(box, on_inputs, on_outputs, constants, strict)
