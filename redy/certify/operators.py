r"""The operators of ONNX that a certificate may be about, in terms of affine arithmetic and relu.

Every piecewise-linear function is a sum of relus: leaky(z) = a z + (1 - a) relu(z), |z| = 2 relu(z) - z, and
clip(z) = l + relu(z - l) - relu(z - h). Convolutions and average pools see pixels through a table of their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from .affine import Tensor, constant
from .errors import Unusable
from .space import Array, Ints, Space

Numbers = NDArray[Any]
Value = Tensor | Numbers | None
CHUNK = 2**23
"""Numbers that a convolution copies at once."""


@dataclass(frozen=True)
class Call:
    """One node: its attributes, the values of its inputs (None: left out), the space, and relu."""

    attributes: dict[str, Any]
    values: list[Value]
    space: Space
    relu: Callable[[Tensor], Tensor]

    def given(self, k: int) -> bool:
        """Whether input k is not left out."""
        return k < len(self.values) and self.values[k] is not None

    def tensor(self, k: int = 0) -> Tensor:
        """Input k as a tensor."""
        value = self.values[k]
        return value if isinstance(value, Tensor) else constant(self.space, floats(value))

    def numbers(self, k: int) -> Array:
        """Input k, which must be constant, exactly in float64."""
        value = self.values[k]
        if isinstance(value, Tensor):
            raise Unusable(f"input {k} must be constant")
        return floats(value)


def floats(value: Numbers | None) -> Array:
    """float16, float32 and float64 as float64, exactly."""
    if value is None or value.dtype not in {np.dtype(t) for t in ("float16", "float32", "float64")}:
        raise Unusable(f"an input of type {None if value is None else value.dtype}")
    if not np.isfinite(value).all():
        raise Unusable("numbers that are not finite")
    return value.astype(np.float64)


def _gemm(c: Call) -> Tensor:
    a, b = c.tensor(), c.numbers(1)
    if c.attributes.get("transA", 0):
        a = Tensor(c.space, a.T.swapaxes(1, 2), a.e.T)
    alpha, beta = (float(c.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    y = a.at(b.T if c.attributes.get("transB", 0) else b)
    y = y if alpha == 1 else y.times(alpha)
    if not c.given(2):
        return y
    return y.plus(c.tensor(2) if beta == 1 else c.tensor(2).times(beta))


def _matmul(c: Call) -> Tensor:
    left = isinstance(c.values[0], Tensor)
    matrix, x = c.numbers(int(left)), c.tensor(int(not left))
    if matrix.ndim < 2 or len(x.shape) < 2 - left:
        raise Unusable("a product with a vector")
    return x.at(matrix) if left else x.under(matrix)


def _mul(c: Call) -> Tensor:
    first = isinstance(c.values[0], Tensor)
    return c.tensor(int(not first)).times(c.numbers(int(first)))


def _div(c: Call) -> Tensor:
    if not c.numbers(1).all():
        raise Unusable("a division by zero")
    return c.tensor().times(1.0 / c.numbers(1), roundings=1)


def _pads(c: Call, sizes: tuple[int, ...], span: list[int], strides: list[int]) -> list[tuple[int, int]]:
    rank, auto = len(sizes), c.attributes.get("auto_pad", b"NOTSET").decode()
    pads = list(c.attributes.get("pads", [0] * (2 * rank)))
    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        total = [max(0, (-(-n // s) - 1) * s + k - n) for n, s, k in zip(sizes, strides, span, strict=True)]
        ends = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = [*ends[auto == "SAME_LOWER"], *ends[auto == "SAME_UPPER"]]
    if auto not in {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"} or c.attributes.get("ceil_mode", 0) or min(pads) < 0:
        raise Unusable(f"auto_pad {auto}, ceil_mode or a negative padding")
    return list(zip(pads[:rank], pads[rank:], strict=True))


def _seen(c: Call, kernel: tuple[int, ...]) -> Ints:
    """(*output size, pixels of the kernel): the number of each pixel that is seen, -1 for padding."""
    sizes, rank = c.tensor().shape[2:], len(kernel)
    if len(sizes) != rank or c.tensor().shape[0] != 1:
        raise Unusable("the input must be one image")
    strides, dilations = (list(c.attributes.get(name, [1] * rank)) for name in ("strides", "dilations"))
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    grid = np.pad(np.arange(np.prod(sizes)).reshape(sizes), _pads(c, sizes, span, strides), constant_values=-1)
    seen = sliding_window_view(grid, span)[tuple(slice(None, None, s) for s in (*strides, *dilations))]
    return seen.reshape(*seen.shape[:rank], -1).astype(np.int64)


def _convolved(batch: Array, seen: Ints, weights: Array, groups: int) -> Array:
    """(b, 1, C, *size) with weights (O, C / groups, *kernel) -> (b, 1, O, *output size)."""
    b, channels, positions = len(batch), batch.shape[2], seen.reshape(-1, seen.shape[-1])
    pixels = np.concatenate([batch.reshape(b, channels, -1), np.zeros((b, channels, 1))], axis=2)
    kernels = weights.reshape(groups, len(weights) // groups, -1).transpose(0, 2, 1)
    result = np.empty((b, groups, kernels.shape[2], len(positions)))
    step = max(1, CHUNK // max(1, channels * positions.size))
    for begin in range(0, b, step):
        part = pixels[begin : begin + step, :, positions]
        part = part.reshape(len(part), groups, -1, *positions.shape).transpose(1, 0, 3, 2, 4)
        value = part.reshape(groups, -1, kernels.shape[1]) @ kernels
        result[begin : begin + step] = value.reshape(*part.shape[:3], -1).transpose(1, 0, 3, 2)
    return result.reshape(b, 1, len(weights), *seen.shape[:-1])


def _conv(c: Call) -> Tensor:
    w, groups = c.numbers(1), int(c.attributes.get("group", 1))
    seen = _seen(c, w.shape[2:])
    if c.tensor().shape[1] != w.shape[1] * groups or len(w) % groups:
        raise Unusable("channels and weights do not fit")
    fan = int(np.prod(w.shape[1:]))
    y = c.tensor().linear(
        lambda t: _convolved(t, seen, w, groups), lambda t: _convolved(t, seen, np.abs(w), groups), fan
    )
    return y.plus(c.numbers(2).reshape(1, -1, *[1] * (w.ndim - 2))) if c.given(2) else y


def _average_pool(c: Call) -> Tensor:
    kernel, channels = tuple(c.attributes["kernel_shape"]), c.tensor().shape[1]
    seen, ones = _seen(c, kernel), np.ones((channels, 1, *kernel))

    def summed(batch: Array) -> Array:
        return _convolved(batch, seen, ones, channels)

    count = np.full(seen.shape[:-1], seen.shape[-1]) if c.attributes.get("count_include_pad") else (seen >= 0).sum(-1)
    return c.tensor().linear(summed, summed, seen.shape[-1]).times(1.0 / count, roundings=1)


def _batch_norm(c: Call) -> Tensor:
    """(x - mean) f + b with f = scale / sqrt(variance + epsilon), which passes four roundings."""
    if c.attributes.get("training_mode", 0) or not c.attributes.get("spatial", 1):
        raise Unusable("only inference is known")
    along = (1, -1, *[1] * (len(c.tensor().shape) - 2))
    scale, bias, mean, variance = (c.numbers(k).reshape(along) for k in range(1, 5))
    root = variance + float(c.attributes.get("epsilon", np.float32(1e-5)))
    if not (root > 0).all():
        raise Unusable("a variance that is not positive")
    return c.tensor().plus(-mean).times(scale / np.sqrt(root), roundings=4).plus(bias)


def _leaky(c: Call, slope: Array) -> Tensor:
    return c.tensor().times(slope).plus(c.relu(c.tensor()).times(1.0 - slope, roundings=1))


def _clip(c: Call) -> Tensor:
    y, ends = c.tensor(), list[Array | None]()
    for k, name in ((1, "min"), (2, "max")):
        given = [np.asarray(float(c.attributes[name]))] if name in c.attributes else []
        ends.append(given[0] if given else c.numbers(k) if c.given(k) else None)
    low, high = ends
    if low is not None and high is not None and not (low <= high).all():
        raise Unusable("the smallest number is above the largest")
    above = None if high is None else c.relu(y.plus(-high))
    y = y if low is None else c.relu(y.plus(-low)).plus(low)
    return y if above is None else y.plus(above, -1.0)


COMPUTE: dict[str, Callable[[Call], Tensor]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": lambda c: c.tensor(0).plus(c.tensor(1)),
    "Sub": lambda c: c.tensor(0).plus(c.tensor(1), -1.0),
    "Mul": _mul,
    "Div": _div,
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "AveragePool": _average_pool,
    "Relu": lambda c: c.relu(c.tensor()),
    "LeakyRelu": lambda c: _leaky(c, np.asarray(float(c.attributes.get("alpha", np.float32(0.01))))),
    "PRelu": lambda c: _leaky(c, c.numbers(1)),
    "Abs": lambda c: c.relu(c.tensor()).times(2.0).plus(c.tensor(), -1.0),
    "Clip": _clip,
}
"""Operator -> its one output."""
