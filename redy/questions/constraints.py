"""The constraints of a property as rows behind the network, so that every engine bounds them like any other value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from redy.model import Affine, Array, Conjunction, Dense, Network, Port, Term

NAME = "constraints of the property"


def constrained(network: Network, conjunctions: Sequence[Conjunction]) -> tuple[Network, list[NDArray[np.int64]]]:
    """The network with the different rows A x + B y + c of all conjunctions as its only output, called `NAME`.

    Returns it, and for every conjunction the numbers of its rows.
    """
    numbers: dict[bytes, int] = {}
    rows: list[tuple[Array, Array, float]] = []
    places = []
    for conjunction in conjunctions:
        own = []
        for row in zip(conjunction.inputs, conjunction.outputs, conjunction.constants, strict=True):
            key = b"".join(np.asarray(part).tobytes() for part in row)
            if key not in numbers:
                numbers[key] = len(rows)
                rows.append(row)
            own.append(numbers[key])
        places.append(np.array(own, dtype=np.int64))
    return _with_rows(network, rows), places


def _with_rows(network: Network, rows: list[tuple[Array, Array, float]]) -> Network:
    bias = np.array([float(constant) for _, _, constant in rows])
    terms, start = [], 0
    for port in network.outputs:
        size = math.prod(port.shape)
        weight = np.array([outputs[start : start + size] for _, outputs, _ in rows]).reshape(len(rows), size)
        start += size
        terms.append(Term(port.name, Dense(weight, port.shape, (len(rows),))))
    inputs = np.array([row for row, _, _ in rows]).reshape(len(rows), -1)
    if inputs.any():
        terms.append(Term(network.input.name, Dense(inputs, network.input.shape, (len(rows),))))
    node = Affine(NAME, tuple(terms), bias)
    return replace(network, nodes=(*network.nodes, node), outputs=(Port(NAME, node.shape),))
