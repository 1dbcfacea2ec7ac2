"""Phase masks: two bits for each unit of a network on one slice.

A code p in {0, 1, 2} says that the unit is stuck in piece p of its activation (for ReLU: 0 inactive, 1 active), 3 that
it is kept. Units count through the activations in order, flattened; four of them lie in a byte, the first in its lowest
bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from redy.model import Activate, Array, Finding, Line, Network, Proof, Proved, Unit

KEPT = 3

Codes = NDArray[np.uint8]

T = TypeVar("T", bound=np.generic)


def codes_of(network: Network, intervals: Mapping[str, tuple[Array, Array]]) -> Codes:
    """The code of every unit, (units,), from sound pre-activation bounds by activation name; without bounds: kept."""
    parts = [np.zeros(0, dtype=np.int64)]
    for node in network.activations:
        if node.name in intervals:
            piece = node.function.stuck(*intervals[node.name]).ravel()
        else:
            piece = np.full(math.prod(node.shape), -1)
        parts.append(np.where((piece < 0) | (piece >= KEPT), KEPT, piece))
    return np.concatenate(parts).astype(np.uint8)


def pack(codes: Codes) -> bytes:
    """Codes (units,) as ceil(units / 4) bytes."""
    padded = np.zeros(-(-codes.size // 4) * 4, dtype=np.uint8)
    padded[: codes.size] = codes
    quads = padded.reshape(-1, 4)
    return (quads[:, 0] | quads[:, 1] << 2 | quads[:, 2] << 4 | quads[:, 3] << 6).astype(np.uint8).tobytes()


def unpack(packed: NDArray[np.uint8], units: int) -> Codes:
    """The codes (n, units) of packed masks (n, bytes)."""
    quads = packed[:, :, None] >> np.array([0, 2, 4, 6], dtype=np.uint8) & 3
    return np.ascontiguousarray(quads.reshape(len(packed), -1)[:, :units])


def by_activation(network: Network, codes: NDArray[T]) -> Iterator[tuple[Activate, NDArray[T]]]:
    """Every activation with the elements of `codes` (units,) that belong to its units (flattened)."""
    first = 0
    for node in network.activations:
        size = math.prod(node.shape)
        yield node, codes[first : first + size]
        first += size


def findings_of(network: Network, codes: Codes) -> list[Finding]:
    """The phase findings that a mask stands for."""
    findings: list[Finding] = []
    for node, mine in by_activation(network, codes):
        function = node.function.broadcast_to(node.shape)
        slopes = function.slopes.reshape(function.pieces, -1)
        intercepts = function.intercepts().reshape(function.pieces, -1)
        for index in np.flatnonzero(mine != KEPT).tolist():
            piece = int(mine[index])
            line = Line(float(slopes[piece, index]), float(intercepts[piece, index]))
            proof = Proof(f"{node.name}[{index}] stays in piece {piece} on the slice", "mask")
            findings.append(Finding(Unit(node.name, index), "phase", line, 0.0, Proved(proof)))
    return findings
