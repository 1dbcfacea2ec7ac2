"""Both files side by side in onnxruntime, which computes in the type in which the networks are written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from redy.errors import InputError
from redy.formats.onnx_run import Session
from redy.model import Array, Box

CHUNK = 4096
"""Points run at once."""
ROUNDS, TIMING_SECONDS = 200, 0.2
"""Both files are timed so often at most, and for about so long."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What running both files in onnxruntime showed.

    Attributes:
        points: how many inputs of the box were run.
        deviation: the largest |reduced - original| of any output.
        scale: the largest |original| of any output.
        winners: at how many points the winning output differs.
        milliseconds: median time of one sample in the original and in the reduced file, on one thread.
    """

    points: int
    deviation: float
    scale: float
    winners: int
    milliseconds: tuple[float, float] | None = None


def measure(
    first: Session,
    second: Session,
    box: Box,
    points: Array,
    dtype: str,
    winner: Literal["max", "min"] = "max",
) -> Measured:
    """Run both files at points of the box.

    Args:
        first: the original.
        second: the reduced network.
        box: the inputs for which the two are compared.
        points: inputs (n, *input shape) of the box.
        dtype: the type of the input; the points are rounded to it so that they stay in the box.
        winner: which element of the first output wins.
    """
    deviation = scale = 0.0
    winners = 0
    inside = within(box, points, dtype)
    for start in range(0, len(inside), CHUNK):
        chunk = inside[start : start + CHUNK]
        before, after = first.run_all(chunk), second.run_all(chunk)
        for a, b in zip(before, after, strict=True):
            deviation = max(deviation, _largest_difference(a, b.reshape(a.shape) if b.size == a.size else b))
            # An overflow in the original must not make every deviation look small.
            scale = max(scale, float(np.abs(a[np.isfinite(a)]).max(initial=0.0)))
        winners += int((_winner(before[0], winner) != _winner(after[0], winner)).sum())
    times = _milliseconds((first, second), inside[:1]) if len(inside) else None
    return Measured(len(inside), deviation, scale, winners, times)


def _milliseconds(sessions: tuple[Session, Session], sample: Array) -> tuple[float, float]:
    """Median time of one sample in each, taken in turn, so that whatever else the machine does slows both."""
    begin = time.perf_counter()
    for session in sessions:
        session.run_all(sample)
    rounds = max(3, min(ROUNDS, int(TIMING_SECONDS / max(time.perf_counter() - begin, 1e-7))))
    times = np.zeros((rounds, 2))
    for number in range(rounds):
        for place, session in enumerate(sessions):
            begin = time.perf_counter()
            session.run_all(sample)
            times[number, place] = time.perf_counter() - begin
    before, after = 1e3 * np.median(times, axis=0)
    return float(before), float(after)


def _largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """An element that is not finite but the same in both is no difference; in one only it is as far as can be."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(a.astype(np.float64) - b.astype(np.float64)))
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))


def within(box: Box, points: Array, dtype: str) -> Array:
    """The points as numbers of `dtype`, rounded towards the inside of the box where rounding to nearest leaves it."""
    kind = np.dtype(dtype)
    if kind.kind != "f":
        low, high = np.ceil(box.lower), np.floor(box.upper)
        if (low > high).any():
            raise InputError(f"the box holds no whole number for an input, which is {dtype}; widen it")
        return np.clip(np.rint(points), low, high)
    largest = np.float64(np.finfo(kind).max)
    rounded = np.clip(points, -largest, largest).astype(kind)
    below, above = rounded.astype(np.float64) < box.lower, rounded.astype(np.float64) > box.upper
    up, down = np.array(np.inf, kind), np.array(-np.inf, kind)
    with np.errstate(over="ignore"):  # next to the largest number of the type
        rounded = np.where(below, np.nextafter(rounded, up), np.where(above, np.nextafter(rounded, down), rounded))
    return rounded.astype(np.float64)


def _winner(output: np.ndarray, winner: Literal["max", "min"]) -> np.ndarray:
    flat = output.reshape(len(output), -1)
    if not flat.shape[1]:
        return np.zeros(len(output), dtype=np.int64)
    return np.asarray(flat.argmax(axis=1) if winner == "max" else flat.argmin(axis=1))
