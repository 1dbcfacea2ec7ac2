"""Slicing inside a network: the box that a hidden layer's values lie in is cut, instead of the input's.

For networks with many inputs (Lahav and Katz, FMCAD 2021, figure B): the family has one front, the original up to the
layer, and small networks for what follows. The hidden box comes from sound linear bounds over the input box.

Whatever evaluates the front rounds in its own way (numpy, C, onnxruntime), so near a face two of them may pick
different slices. Each is right: a slice is picked by the very value v that its network is then given, and on the closed
cell that holds v the network computes what the original's tail computes of v. What is left is the rounding of v, as in
the original. The hidden box is widened by a bound on that rounding, so that v lies in it for every engine:

    |v_fl - v| <= e,   e_z = sum |W| e_x + gamma_n (sum |W| (m_x + e_x) + |b|),   e_f = L e_z,   m_x >= |x|,

with gamma_n = n u / (1 - n u) and u the unit roundoff of the model's type (Higham, Accuracy and Stability of Numerical
Algorithms, section 3.1): true for every order of a sum with n terms. n counts 8 terms more for weights that an engine
merges with those of a batch normalisation.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import ModelProto, shape_inference
from onnx.utils import Extractor

from redy.bounds.linear import linear_bounds
from redy.errors import InputError
from redy.model import Activate, Affine, Array, Box, Network
from redy.slicing.cuts import TreeCut

MERGED = 8
"""Terms that stand for the rounding of merged weights."""
TINY = 1e-30
"""Covers underflow in a sum."""
SLACK = 1 + 2.0**-20
"""Covers the rounding of the bound itself, which is formed in float64."""
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
    intervals = linear_bounds(network, box).intervals
    lower, upper = (np.maximum(end, 0.0) for end in intervals[at])
    slack = rounding(network, box, at, intervals)
    if not np.isfinite(upper + slack).all():
        raise InputError(f"--at {at}: its values are not bounded on the box")
    return Box(np.maximum(lower - slack, 0.0), upper + slack)


def rounding(network: Network, box: Box, at: str, intervals: Mapping[str, tuple[Array, Array]]) -> Array:
    """How far an evaluation in the model's type can be from real arithmetic, per unit of the layer `at`.

    Args:
        network: the model.
        box: its inputs.
        at: an activation.
        intervals: sound bounds of the pre-activations, by activation.

    Raises:
        InputError: a node before the layer is neither affine nor piecewise linear.
    """
    unit = float(np.finfo(network.weight_dtype).eps) / 2
    size = {network.input.name: np.maximum(np.abs(box.lower), np.abs(box.upper))}
    error = {network.input.name: np.zeros(box.shape)}
    for node in network.nodes:
        if isinstance(node, Affine):
            terms = sum(term.operator.fan_in + 1 for term in node.terms) + 1 + MERGED
            gamma = terms * unit / (1 - terms * unit)
            total = sum((t.operator.spread(size[t.source][None])[0] for t in node.terms), np.abs(node.bias))
            carried = sum((t.operator.spread(error[t.source][None])[0] for t in node.terms), np.zeros(node.shape))
            size[node.name] = total
            error[node.name] = carried + gamma * (total + carried) + TINY
        elif isinstance(node, Activate):
            function = node.function.broadcast_to(node.shape)
            steepest = np.abs(function.slopes).max(axis=0)
            if node.name in intervals:
                ends = np.maximum(np.abs(intervals[node.name][0]), np.abs(intervals[node.name][1]))
                size[node.source] = np.minimum(size[node.source], ends)
            start = np.abs(function(np.zeros(node.shape)))
            size[node.name] = start + steepest * size[node.source]
            error[node.name] = steepest * error[node.source] + 4 * unit * (size[node.name] + error[node.source])
        else:
            raise InputError(f"--at {at}: {node.name} before it is neither affine nor piecewise linear")
        if node.name == at:
            break
    return np.asarray(error[at] * SLACK)


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
