r"""The operators of ONNX that a certificate may be about, in terms of affine arithmetic, movement and relu.

Every piecewise-linear function is a sum of ReLUs: leaky(z) = a z + (1 - a) relu(z), |z| = 2 relu(z) - z, and
clip(z) = l + relu(z - l) - relu(z - h). An operator gets numbers or `Tensor`s; None stands for
what is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .affine import Affine, Tensor, Windows
from .errors import Unusable
from .space import Array

Numbers = NDArray[Any]
Value = Tensor | Numbers | None
Relu = Callable[[Tensor], Tensor]


class Call:
    """One node: its attributes, its inputs' values, the opset, affine arithmetic, and relu."""

    def __init__(self, attributes: dict[str, Any], values: list[Value], count: int, affine: Affine, relu: Relu) -> None:
        self.attributes, self.values, self.outputs, self.affine, self.relu = attributes, values, count, affine, relu

    def tensor(self, k: int = 0) -> Tensor:
        """Input k as a tensor."""
        value = self.values[k]
        if value is None:
            raise Unusable(f"input {k} is missing")
        return value if isinstance(value, Tensor) else self.affine.constant(floats(value))

    def numbers(self, k: int, default: Numbers | None = None) -> Array:
        """Input k, which must be constant, exactly in float64."""
        value = self.values[k] if k < len(self.values) else None
        value = default if value is None else value
        if value is None or isinstance(value, Tensor):
            raise Unusable(f"input {k} must be constant")
        return floats(value)

    def integers(self, k: int, name: str, default: list[int] | None = None) -> list[int]:
        """Integers from attribute `name` (old opsets) or from input k."""
        if name in self.attributes:
            return [int(i) for i in np.atleast_1d(self.attributes[name])]
        value = self.values[k] if k < len(self.values) else None
        if isinstance(value, np.ndarray) and value.dtype.kind == "i":
            return [int(i) for i in value.ravel()]
        if value is None and default is not None:
            return default
        raise Unusable(f"{name} must be constant")

    def move(self, move: Callable[[Numbers], Numbers], k: int = 0) -> Value:
        """Input k with elements moved; `move` acts on (batch, *shape)."""
        value = self.values[k]
        if isinstance(value, Tensor):
            return value.moved(move)
        assert value is not None
        return np.asarray(move(value[None])[0])

    def shape(self, k: int = 0) -> tuple[int, ...]:
        """The shape of input k."""
        value = self.values[k]
        if value is None:
            raise Unusable(f"input {k} is missing")
        return tuple(value.shape)


def floats(value: Numbers) -> Array:
    """float16, float32 and float64 as float64, exactly; small integers too."""
    if value.dtype not in {np.dtype(t) for t in ("float16", "float32", "float64")}:
        raise Unusable(f"holds numbers of type {value.dtype}")
    if not np.isfinite(value).all():
        raise Unusable("holds numbers that are not finite")
    return value.astype(np.float64)


def _gemm(c: Call) -> Value:
    a, b = c.tensor(), c.numbers(1)
    if c.attributes.get("transA", 0):
        a = a.moved(lambda t: t.swapaxes(1, 2))
    y = c.affine.times(a, b.T if c.attributes.get("transB", 0) else b)
    alpha, beta = (np.asarray(float(c.attributes.get(name, 1.0))) for name in ("alpha", "beta"))
    y = y if alpha == 1 else c.affine.scale(y, alpha)
    if len(c.values) < 3 or c.values[2] is None:
        return y
    bias = c.tensor(2)
    return c.affine.add(y, bias if beta == 1 else c.affine.scale(bias, beta))


def _matmul(c: Call) -> Value:
    if not isinstance(c.values[0], Tensor):
        if len(c.shape(1)) < 2 or len(c.shape(0)) < 2:
            raise Unusable("a product with a vector on the right")
        return c.affine.times_left(c.numbers(0), c.tensor(1))
    matrix = c.numbers(1)
    if matrix.ndim < 2:
        raise Unusable("a product with a vector on the right")
    return c.affine.times(c.tensor(), matrix)


def _add(c: Call) -> Value:
    return c.affine.add(c.tensor(0), c.tensor(1))


def _sub(c: Call) -> Value:
    return c.affine.add(c.tensor(0), c.tensor(1), -1.0)


def _mul(c: Call) -> Value:
    first = isinstance(c.values[0], Tensor)
    return c.affine.scale(c.tensor(0 if first else 1), c.numbers(1 if first else 0))


def _div(c: Call) -> Value:
    divisor = c.numbers(1)
    if not divisor.all():
        raise Unusable("a division by zero")
    return c.affine.divide(c.tensor(), divisor)


def _windows(c: Call, kernel: tuple[int, ...]) -> Windows:
    shape, rank = c.shape()[2:], len(kernel)
    if len(c.shape()) != rank + 2 or c.shape()[0] != 1:
        raise Unusable("the input must be one image")
    strides, dilations = (tuple(c.attributes.get(name, [1] * rank)) for name in ("strides", "dilations"))
    pads, auto = list(c.attributes.get("pads", [0] * (2 * rank))), c.attributes.get("auto_pad", b"NOTSET").decode()
    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        totals = [
            max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
            for size, s, k, d in zip(shape, strides, kernel, dilations, strict=True)
        ]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = [*small, *large] if auto == "SAME_UPPER" else [*large, *small]
    if auto not in {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"} or c.attributes.get("ceil_mode", 0) or min(pads) < 0:
        raise Unusable(f"auto_pad {auto}, ceil_mode or a negative padding")
    return Windows(strides, tuple(zip(pads[:rank], pads[rank:], strict=True)), dilations)


def _conv(c: Call) -> Value:
    w = c.numbers(1)
    windows, groups = _windows(c, w.shape[2:]), int(c.attributes.get("group", 1))
    if c.shape()[1] != w.shape[1] * groups:
        raise Unusable("channels and weights do not fit")
    fan = int(np.prod(w.shape[1:]))
    y = c.affine.linear(
        c.tensor(), lambda t: windows.convolve(t, w, groups), lambda t: windows.convolve(t, np.abs(w), groups), fan
    )
    if len(c.values) < 3 or c.values[2] is None:
        return y
    return c.affine.shift(y, c.numbers(2).reshape(1, -1, *[1] * (w.ndim - 2)))


def _average_pool(c: Call) -> Value:
    kernel, channels = tuple(c.attributes["kernel_shape"]), c.shape()[1]
    windows, ones = _windows(c, kernel), np.ones((channels, 1, *kernel))
    y = c.affine.linear(
        c.tensor(),
        lambda t: windows.convolve(t, ones, channels),
        lambda t: windows.convolve(t, ones, channels),
        int(np.prod(kernel)),
    )
    count = windows.convolve(np.ones((1, *c.shape())), ones, channels)[0]
    return c.affine.divide(y, np.full_like(count, np.prod(kernel)) if c.attributes.get("count_include_pad") else count)


def _batch_norm(c: Call) -> Value:
    """(x - mean) f + b with f = scale / sqrt(variance + epsilon), which passes four roundings."""
    if c.attributes.get("training_mode", 0) or c.outputs != 1 or not c.attributes.get("spatial", 1):
        raise Unusable("only inference is known")
    along = (1, -1, *[1] * (len(c.shape()) - 2))
    scale, bias, mean, variance = (c.numbers(k).reshape(along) for k in range(1, 5))
    root = variance + float(c.attributes.get("epsilon", np.float32(1e-5)))
    if not (root > 0).all():
        raise Unusable("a variance that is not positive")
    x = c.affine.scale(c.affine.shift(c.tensor(), -mean), scale / np.sqrt(root), roundings=4)
    return c.affine.shift(x, bias)


def _prelu(c: Call) -> Value:
    z, slope = c.tensor(), c.numbers(1)
    return c.affine.add(c.affine.scale(z, slope), c.affine.scale(c.relu(z), 1.0 - slope, roundings=1))


def _leaky(c: Call) -> Value:
    c.values = [c.values[0], np.asarray(float(c.attributes.get("alpha", np.float32(0.01))))]
    return _prelu(c)


def _abs(c: Call) -> Value:
    z = c.tensor()
    return c.affine.add(c.affine.scale(c.relu(z), np.asarray(2.0)), z, -1.0)


def _clip(c: Call) -> Value:
    y, ends = c.tensor(), []
    for k, name in ((1, "min"), (2, "max")):
        given = np.asarray(float(c.attributes[name])) if name in c.attributes else None
        ends.append(
            c.numbers(k, given) if given is not None or (len(c.values) > k and c.values[k] is not None) else None
        )
    low, high = ends
    if low is not None and high is not None and not (low <= high).all():
        raise Unusable("the smallest number is above the largest")
    parts = [] if high is None else [c.affine.scale(c.relu(c.affine.shift(y, -high)), np.asarray(-1.0))]
    if low is not None:
        y = c.affine.shift(c.relu(c.affine.shift(y, -low)), low)
    return c.affine.add(y, parts[0]) if parts else y


COMPUTE: dict[str, Callable[[Call], Value]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "AveragePool": _average_pool,
    "Relu": lambda c: c.relu(c.tensor()),
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
    "Abs": _abs,
    "Clip": _clip,
}
"""Operator -> its one output."""
