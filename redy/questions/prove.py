"""Has a network a property? For files: the network is read, and a violation is confirmed in onnxruntime."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from redy.formats.onnx_read import read_network
from redy.formats.onnx_run import Session
from redy.formats.properties import read_property
from redy.model import Array, Limits, Network, Proof, Property, Proved, Verdict
from redy.model.limits import UNLIMITED
from redy.questions.ask import ask
from redy.questions.situation import Engines, Situation
from redy.questions.witness import Run

TIME_LIMIT = 60.0
"""Seconds, by default."""

Source = str | os.PathLike[str]


def prove(
    network: Source | Network,
    prop: Source | Property,
    *,
    time_limit: float | None = TIME_LIMIT,
    work: int = UNLIMITED,
    engines: Engines | None = None,
    run: Run | None = None,
) -> Verdict:
    """Decide whether a network has a property: no input of its boxes leads into the unsafe set.

    Args:
        network: an ONNX file, or a network in memory.
        prop: a VNN-LIB file, or a property.
        time_limit: seconds, None for no limit.
        work: work of the search, at most, so that results can be repeated (see `redy.model.limits`).
        engines: which engines may answer; by default what suits the network.
        run: for a network in memory, the evaluation of its file that must confirm a violation (see `evaluation`);
            without one float64 evaluation must be sure of it.

    Returns:
        `Proved` with its evidence, `Refuted` with an input of a box (*input shape) in the network's float type, whose
        outputs in onnxruntime are in the unsafe set, or `Unknown` with the reason.

    Raises:
        InputError: a file cannot be read, or does not fit the other one.
    """
    if not isinstance(network, Network):
        run = evaluation(network)
        network = read_network(network)
    if not isinstance(prop, Property):
        prop = property_of(network, prop)
    if not prop.conjunctions:
        return Proved(Proof(str(prop), "the unsafe set is empty"))
    situation = Situation(network, prop.hull(), run=run, engines=engines or Engines())
    return ask(prop, situation, Limits.within(time_limit, work))


def property_of(network: Network, path: Source) -> Property:
    """The property in a file, for the inputs and outputs of a network."""
    return read_property(Path(path), network.input.shape, sum(math.prod(port.shape) for port in network.outputs))


def evaluation(path: Source) -> Run:
    """All outputs of an ONNX file in onnxruntime, flattened, as float64; the file is loaded when it is first run."""
    sessions: list[Session] = []

    def run(points: Array) -> Array:
        if not sessions:
            sessions.append(Session(path))
        found = sessions[0].run_all(points)
        return np.concatenate([np.asarray(y, dtype=np.float64).reshape(len(points), -1) for y in found], axis=1)

    return run
