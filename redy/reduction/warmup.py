"""Compiling every kernel that a reduction uses, on a network of a few units."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from redy.condensed.kernels.compiling import around_compiling, is_compiled
from redy.model import Activate, Affine, Box, Network
from redy.model.functions import relu
from redy.model.network import Node, Port, Term
from redy.model.operators import Dense
from redy.reduction.pipeline import reduce

WIDTH = 6
"""Units of a layer: enough that some stay unstable and the search has something to do."""


def warm_up(say: Callable[[str], None] | None = None) -> bool:
    """Compile what is not compiled yet; whether anything was. `say` gets the lines of progress."""
    begun: list[bool] = []
    network, box = _network(), Box(np.full(2, -1.0), np.full(2, 1.0))
    with around_compiling(lambda: begun.append(True), lambda: None):
        options: dict[str, Any]
        for options in ({"preserve": "outputs"}, {"preserve": "decision"}, {"preserve": "tolerance", "tolerance": 0.1}):
            reduce(network, box, engine="branch", samples=100, progress=say, **options)
    return bool(begun)


def compile_for_workers() -> None:
    """Compile in this process what the worker processes that it starts would each compile for themselves."""
    if not kernels_are_compiled():
        warm_up()


def kernels_are_compiled() -> bool:
    """Whether machine code of every kernel lies in the cache (this module imports them all)."""
    return is_compiled()


def _network() -> Network:
    rng = np.random.default_rng(0)
    sizes, source = (2, WIDTH, WIDTH, 2), "x"
    nodes: list[Node] = []
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        weights, bias = rng.normal(size=(outputs, inputs)), 0.3 * rng.normal(size=outputs)
        nodes.append(Affine(f"z{layer}", (Term(source, Dense(weights, (inputs,), (outputs,))),), bias))
        source = f"z{layer}"
        if outputs == WIDTH:
            nodes.append(Activate(f"y{layer}", source, relu(), (outputs,)))
            source = f"y{layer}"
    return Network(Port("x", (2,)), tuple(nodes), (Port(source, (2,)),))
