"""The fields of a job in a file of jobs: names, types and allowed values, checked before any job runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from redy.errors import InputError
from redy.milp.backends import CHOICES
from redy.runs.jobs import inline

Where = Callable[[str], str]
"""From the name of a field its place in the file, for errors."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a field may hold.

    Attributes:
        words: that, in words.
        read: the value of a JSON value or of the text of a cell; TypeError or ValueError where it is none.
    """

    words: str
    read: Callable[[Any], Any]


def _text(value: Any) -> str:  # noqa: ANN401 - what JSON gives
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def _box(value: Any) -> str:  # noqa: ANN401 - as above
    if isinstance(value, str):
        if inline(value):
            json.loads(value)
        return _text(value)
    if not isinstance(value, list | dict):
        raise TypeError
    return json.dumps(value)


def _number(value: Any) -> float:  # noqa: ANN401 - as above
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError
    return number


def _whole(value: Any) -> int:  # noqa: ANN401 - as above
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError
    number = int(value)
    if number < 0:
        raise ValueError
    return number


def _switch(value: Any) -> bool:  # noqa: ANN401 - as above
    words = {True: True, False: False, "true": True, "false": False}
    key = value.strip().lower() if isinstance(value, str) else value
    if isinstance(key, int) and not isinstance(key, bool):
        raise TypeError
    if key not in words:
        raise ValueError
    return words[key]


def _jobs(value: Any) -> tuple[int, ...]:  # noqa: ANN401 - as above
    """Numbers of jobs from 1, as places from 0."""
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    numbers = [_whole(part) for part in (parts if isinstance(parts, list) else [parts])]
    if not numbers or min(numbers) < 1:
        raise ValueError
    return tuple(sorted({number - 1 for number in numbers}))


def _one_of(*choices: str) -> Kind:
    def read(value: Any) -> str:  # noqa: ANN401 - as above
        if value not in choices:
            raise ValueError
        return str(value)

    return Kind(f"one of {', '.join(choices)}", read)


_POSITIVE = Kind("a positive number", _number)

FIELDS: dict[str, Kind] = {
    "model": Kind("the path of an ONNX model", _text),
    "bounds": Kind('the path of a box, or a box such as "[-1,1]"', _box),
    "output": Kind("the path of the network to write", _text),
    "after": Kind("numbers of other jobs, from 1", _jobs),
}
"""The fields that are no options."""

OPTIONS: dict[str, Kind] = {
    "preserve": _one_of("outputs", "decision", "tolerance"),
    "tolerance": _POSITIVE,
    "relative_to": _one_of("box"),
    "winner": _one_of("max", "min"),
    "margin": _POSITIVE,
    "engine": _one_of("auto", "linear", "branch", "milp"),
    "solver": _one_of(*CHOICES),
    "criteria": Kind("names of steps between commas", _text),
    "effort": _one_of("quick", "normal", "thorough"),
    "time_limit": _POSITIVE,
    "seed": Kind("a whole number, at least 0", _whole),
    "refit": Kind("true or false", _switch),
}
"""The options a job may have, with the words of `redy reduce`."""


def checked_fields(row: Mapping[str, Any], where: Where) -> dict[str, Any]:
    """The values of a row by name.

    Args:
        row: what the file holds, by name of the field; a field that is not given is not there.
        where: where a field stands.

    Raises:
        InputError: a field is unknown, holds something else than it must, or a needed one is missing.
    """
    kinds = FIELDS | OPTIONS
    values = {}
    for name, value in row.items():
        if name not in kinds:
            raise InputError(f"{where(name)}: {name} is none of {', '.join(kinds)}")
        try:
            values[name] = kinds[name].read(value)
        except (TypeError, ValueError, OverflowError):
            shown = value if isinstance(value, str) else json.dumps(value)
            raise InputError(f"{where(name)}: {name} {shown!r} must be {kinds[name].words}") from None
    for name in ("model", "bounds"):
        if name not in values:
            raise InputError(f"{where('')}: has no {name}")
    if (values.get("preserve") == "tolerance") != ("tolerance" in values):
        name = "tolerance" if "tolerance" in values else "preserve"
        raise InputError(f"{where(name)}: preserve tolerance and a tolerance are given together")
    return values
