"""What a slice costs in the shared form, by how many units of each activation live there."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import ArrayLike

from redy.model import Affine, Array, Network
from redy.rewrite import fuse


class SharedCost:
    """Multiply-adds of the shared form: living rows times living columns, term by term.

    Attributes:
        network: the network in the normal form of `redy.rewrite.fuse`; its activations are those of the original.
    """

    def __init__(self, network: Network) -> None:
        self.network = fuse(network)
        place = {node.name: k for k, node in enumerate(self.network.activations)}
        self._terms: list[tuple[int, int, int, int]] = []
        for node in self.network.nodes:
            if isinstance(node, Affine):
                readers = [reader.name for reader in self.network.readers[node.name] if reader.name in place]
                row = place[readers[0]] if readers else -1
                for term in node.terms:
                    columns = math.prod(term.operator.in_shape)
                    self._terms.append((row, node.bias.size, place.get(term.source, -1), columns))

    def __call__(self, living: ArrayLike) -> Array:
        """The cost for numbers of living units, (..., activations), which may be expectations."""
        counts = np.asarray(living, dtype=np.float64)
        total = np.zeros(counts.shape[:-1])
        for row, rows, column, columns in self._terms:
            total += (rows if row < 0 else counts[..., row]) * (columns if column < 0 else counts[..., column])
        return total

    def of_units(self, alive: ArrayLike) -> Array:
        """The cost for each row of (n, units): whether, or with what chance, each unit of the network lives; (n,)."""
        units = np.asarray(alive, dtype=np.float64)
        sizes = [math.prod(node.shape) for node in self.network.activations]
        counts = [units[:, a:b].sum(axis=1) for a, b in pairwise(accumulate(sizes, initial=0))]
        return self(np.stack(counts, axis=1) if counts else np.zeros((len(units), 0)))
