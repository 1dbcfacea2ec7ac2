"""Piecewise-linear activations: the ONNX operator that is exactly the function, else a sum of Relu terms."""

from __future__ import annotations

import numpy as np

from redy.formats.writing.builder import Builder, compressed
from redy.model import Activate, Array, PiecewiseLinear
from redy.model.functions import hard_sigmoid


def write_activation(builder: Builder, node: Activate) -> None:
    """The activation under the node's own name."""
    source, function = builder.tensor(node.source), node.function
    if not (_two_pieces(builder, node, source) or _three_pieces(builder, node, source)):
        _sum_of_relus(builder, node.name, source, function)


def _two_pieces(builder: Builder, node: Activate, source: str) -> bool:
    function, name = node.function, node.name
    if function.pieces != 2:
        return False
    bend, (left, right) = function.breakpoints[0], function.slopes
    at_zero = not bend.any() and not function.value.any()
    if function.is_relu:
        builder.node("Relu", [source], name)
    elif at_zero and (left == -1).all() and (right == 1).all():
        builder.node("Abs", [source], name)
    elif at_zero and (right == 1).all() and builder.dtype == np.float32:
        alpha = float(left.flat[0])
        if left.ndim == 0 and np.float32(alpha) == alpha:
            builder.node("LeakyRelu", [source], name, alpha=alpha)
        else:
            slope = np.reshape(left, (1,) * (left.ndim == 0) + left.shape)
            builder.node("PRelu", [source, builder.weight(f"{name}.slope", slope)], name)
    elif np.array_equal(function.value, bend) and (left == 0).all() and (right == 1).all():
        _bound(builder, name, source, bend, above=True, out=name)
    elif np.array_equal(function.value, bend) and (left == 1).all() and (right == 0).all():
        _bound(builder, name, source, bend, above=False, out=name)
    else:
        return False
    return True


def _three_pieces(builder: Builder, node: Activate, source: str) -> bool:
    function, name = node.function, node.name
    if function.pieces != 3 or function.slopes[[0, 2]].any():
        return False
    low, high = function.breakpoints
    if (function.slopes[1] == 1).all() and np.array_equal(function.value, low):
        if low.ndim == 0:
            bounds = [builder.weight(f"{name}.{word}", bound) for word, bound in (("min", low), ("max", high))]
            builder.node("Clip", [source, *bounds], name)
        else:
            lifted = _bound(builder, name, source, low, above=True, out=builder.fresh(f"{name}.lifted"))
            _bound(builder, name, lifted, high, above=False, out=name)
        return True
    alpha = float(function.slopes[1].flat[0])
    beta = float(np.float32(-low.flat[0] * alpha))
    if function.shape == () and alpha > 0 and np.float32(alpha) == alpha and function == hard_sigmoid(alpha, beta):
        builder.node("HardSigmoid", [source], name, alpha=alpha, beta=beta)
        return True
    return False


def _bound(builder: Builder, name: str, source: str, bound: Array, *, above: bool, out: str) -> str:
    """max(x, bound) or min(x, bound)."""
    if bound.ndim == 0:
        limit = builder.weight(f"{name}.{'min' if above else 'max'}", bound)
        return builder.node("Clip", [source, limit] if above else [source, "", limit], out)
    return builder.node("Max" if above else "Min", [source, builder.weight(f"{name}.bound", bound)], out)


def _sum_of_relus(builder: Builder, name: str, source: str, function: PiecewiseLinear) -> None:
    """f(x) = value + s_0 (x - t_1) + sum over breakpoints of (s_p - s_(p-1)) relu(x - t_p)."""
    jumps = np.diff(function.slopes, axis=0)
    summands = []
    if function.slopes[0].any():
        summands.append(_scaled(builder, name, source, function.slopes[0]))
    for bend, jump in zip(function.breakpoints, jumps, strict=True):
        if not jump.any():
            continue
        shifted = source
        if bend.any():
            limit = builder.weight(f"{name}.breakpoint", compressed(bend))
            shifted = builder.node("Sub", [source, limit], builder.fresh(f"{name}.shifted"))
        positive = builder.node("Relu", [shifted], builder.fresh(f"{name}.positive"))
        summands.append(_scaled(builder, name, positive, jump))
    constant = function.value - function.slopes[0] * function.breakpoints[0]
    if not summands:
        zero = builder.node("Relu", [source], builder.fresh(f"{name}.positive"))
        summands.append(_scaled(builder, name, zero, np.zeros(())))
    if constant.any():
        summands.append(builder.weight(f"{name}.constant", compressed(constant)))
    total = summands[0]
    for place, summand in enumerate(summands[1:], start=2):
        out = name if place == len(summands) else builder.fresh(f"{name}.sum")
        total = builder.node("Add", [total, summand], out)
    if total != name:
        builder.node("Identity", [total], name)


def _scaled(builder: Builder, name: str, tensor: str, factor: Array) -> str:
    if (factor == 1).all():
        return tensor
    factors = builder.weight(f"{name}.slope", compressed(factor))
    return builder.node("Mul", [tensor, factors], builder.fresh(f"{name}.scaled"))
