"""Time of two models in onnxruntime, measured in pairs: is the second slower than it may be?

The two run in turn on the same input with one thread, and each pair gives one ratio of times. The median of the ratios
is the result; how sure it is follows from their order alone: with n ratios that fall on either side of the true median
with equal chance, the j-th smallest is above it with the chance P(B(n, 1/2) < j). More pairs are taken until the
interval of the median lies on one side of the limit, or time is up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort

from redy.simplify.check import Feeds, inputs, run, session

_DYNAMIC = (224, 128, 64, 32)
"""Sizes of dynamic axes, the first that works: those of pictures, because small ones are nothing but overhead."""

_FEWEST = 11
_MOST = 201
_SAMPLE_SECONDS = 0.002
_SECONDS = 6.0
_CHANCE = 0.001
"""Of an interval that lies wholly on one side of the true median."""


@dataclass(frozen=True)
class Latency:
    """Times of one evaluation with one thread.

    Attributes:
        before, after: medians in milliseconds.
        ratio: the median of the ratios of pairs, after to before.
        low, high: the interval of the median when the measurement ended.
        sizes: of the inputs.
    """

    before: float
    after: float
    ratio: float
    low: float
    high: float
    sizes: str

    def slower(self, limit: float) -> bool:
        """Whether the ratio is above the limit."""
        return self.ratio > limit


def measure(
    original: onnx.ModelProto,
    result: onnx.ModelProto,
    limit: float,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
) -> Latency | None:
    """Time both models until it is clear on which side of `limit` the ratio is; None where one of them does not run."""
    try:
        sessions = [session(original, threads=1), session(result, threads=1)]
        tried = inputs(sessions[0], seed, sizes, dynamic=_DYNAMIC)
        feeds = next(f for f in tried if all(run(s, f) is not None for s in sessions))
    except Exception:  # noqa: BLE001 - onnxruntime raises kinds of its own; a model that cannot run has no time
        return None
    return _paired(sessions, feeds, limit)


def _paired(sessions: list[ort.InferenceSession], feeds: Feeds, limit: float) -> Latency:
    def sample(one: ort.InferenceSession, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            one.run(None, feeds)
        return (time.perf_counter() - start) / repeats

    for one in sessions:
        sample(one, 3)
    repeats = max(1, int(_SAMPLE_SECONDS / max(sample(sessions[0], 1), 1e-7)))
    times: list[tuple[float, float]] = []
    until = time.perf_counter() + _SECONDS
    while len(times) < _FEWEST or (len(times) < _MOST and time.perf_counter() < until):
        order = (0, 1) if len(times) % 2 else (1, 0)
        taken = {k: sample(sessions[k], repeats) for k in order}
        times.append((taken[0], taken[1]))
        if len(times) >= _FEWEST:
            low, high = interval(sorted(b / a for a, b in times))
            if high < limit or low > limit:
                break
    table = np.asarray(times) * 1e3
    ratios = sorted(b / a for a, b in times)
    low, high = interval(ratios)
    before, after = (float(t) for t in np.median(table, axis=0))
    shapes = ", ".join(f"{name} {'x'.join(map(str, x.shape))}" for name, x in feeds.items())
    return Latency(before, after, float(np.median(ratios)), low, high, shapes)


def interval(ratios: list[float]) -> tuple[float, float]:
    """The interval of the median by the sign test, from ratios in order: the whole range where there are few."""
    n = len(ratios)
    below, k = 0.5**n, 0  # the chance that at most k of n lie below the median
    while below + math.comb(n, k + 1) * 0.5**n <= _CHANCE and k + 1 < n // 2:
        k += 1
        below += math.comb(n, k) * 0.5**n
    return ratios[k], ratios[n - 1 - k]


__all__ = ["Latency", "interval", "measure"]
