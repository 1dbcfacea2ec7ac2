"""Slicing inside a network: the box that a hidden layer's values lie in is cut, instead of the input's.

For networks with many inputs (Lahav and Katz, FMCAD 2021, figure B): the family has one front, the original up to the
layer, and small networks for what follows. The hidden box comes from sound linear bounds over the input box.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from onnx import ModelProto, shape_inference
from onnx.utils import Extractor

from redy.bounds.linear import linear_bounds
from redy.errors import InputError
from redy.model import Activate, Affine, Array, Box, Network
from redy.slicing.cuts import TreeCut

MARGIN = 1e-5
"""The hidden box is widened by this share of its values, so that it also holds them as floats round them."""
POINTS = 1024
MOST_UNITS = 16


def relu_layer(network: Network, at: str) -> Activate:
    """The ReLU layer of this name.

    Raises:
        InputError: there is none.
    """
    node = network.by_name.get(at)
    if not isinstance(node, Activate) or not node.function.is_relu:
        names = ", ".join(a.name for a in network.activations if a.function.is_relu)
        raise InputError(f"--at {at}: is no ReLU layer of the network; choose one of {names}")
    return node


def split_model(model: ModelProto, at: str) -> tuple[bytes, bytes]:
    """The model up to the tensor `at`, and from it on.

    Raises:
        InputError: the rest of the model reads more than that tensor.
    """
    extractor = Extractor(shape_inference.infer_shapes(model))
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [port.name for port in model.graph.input if port.name not in constants]
    outputs = [port.name for port in model.graph.output]
    try:
        front = extractor.extract_model(inputs, [at])
        tail = extractor.extract_model([at], outputs)
        onnx.checker.check_model(tail)
        onnx.checker.check_model(front)
    except (ValueError, KeyError, onnx.checker.ValidationError) as error:
        raise InputError(f"--at {at}: the model cannot be cut there ({' '.join(str(error).split())[:120]})") from error
    return front.SerializeToString(), tail.SerializeToString()


def hidden_box(network: Network, box: Box, at: str) -> Box:
    """Where the values of an activation lie for the inputs of a box.

    Raises:
        InputError: there is no ReLU layer of this name, or it is not bounded.
    """
    relu_layer(network, at)
    lower, upper = (np.maximum(end, 0.0) for end in linear_bounds(network, box).intervals[at])
    if not np.isfinite(upper).all():
        raise InputError(f"--at {at}: its values are not bounded on the box")
    slack = MARGIN * (1.0 + np.abs(upper).max())
    return Box(np.maximum(lower - slack, 0.0), upper + slack)


def tail_cut(network: Network, tail: Network, box: Box, at: str, units: int) -> TreeCut:
    """The hidden box, halved along the `units` units whose range moves the next layer most.

    A unit is cut at the median of its positive values at points of the input box.

    Raises:
        InputError: more units than the layer has, or than 2^units slices are sensible for.
    """
    hidden = hidden_box(network, box, at)
    if not 1 <= units <= min(MOST_UNITS, hidden.size):
        raise InputError(f"--units {units}: must be between 1 and {min(MOST_UNITS, hidden.size)}")
    chosen = np.argsort(-_influence(tail, hidden), kind="stable")[:units]
    values = network.trace(box.sample(POINTS, np.random.default_rng(0)), keep=[at])[at].reshape(POINTS, -1)
    faces = [_middle(values[:, unit], hidden, int(unit)) for unit in chosen]
    inner = (1 << units) - 1
    depth = np.floor(np.log2(np.arange(1, inner + 1))).astype(np.int64)
    child = 2 * np.arange(inner)[:, None] + np.array([1, 2])
    children = np.where(child < inner, child, ~(child - inner))
    return TreeCut(hidden, chosen[depth], np.array(faces)[depth], children)


def _influence(tail: Network, hidden: Box) -> Array:
    """Per hidden unit its range times the absolute weights that read it."""
    weight = np.zeros(hidden.size)
    nodes = [node for node in tail.readers[tail.input.name] if isinstance(node, Affine)]
    for node, term in itertools.chain.from_iterable(((node, term) for term in node.terms) for node in nodes):
        if term.source == tail.input.name:
            ones = np.ones((1, *node.shape))
            weight += term.operator.adjoint_spread(ones).ravel()
    return weight * hidden.width.ravel()


def _middle(values: Array, hidden: Box, unit: int) -> float:
    lower, upper = float(hidden.lower.ravel()[unit]), float(hidden.upper.ravel()[unit])
    positive = values[values > 0]
    face = float(np.median(positive)) if positive.size else lower + (upper - lower) / 2
    return face if lower < face < upper else lower + (upper - lower) / 2
