"""Operators of ONNX that move, drop or copy elements; each acts on a batch of arrays, so nothing is rounded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .affine import Tensor
from .errors import Unusable
from .operators import Call, Numbers, Value


def _flatten(c: Call) -> Value:
    shape, axis = c.shape(), int(c.attributes.get("axis", 1))
    axis += len(shape) if axis < 0 else 0
    to = (int(np.prod(shape[:axis])), int(np.prod(shape[axis:])))
    return c.move(lambda t: t.reshape(len(t), *to))


def _reshape(c: Call) -> Value:
    shape, to = c.shape(), c.integers(1, "shape")
    if not c.attributes.get("allowzero", 0):
        to = [shape[k] if size == 0 else size for k, size in enumerate(to)]
    return c.move(lambda t: t.reshape(len(t), *to) if t.size else t)


def _transpose(c: Call) -> Value:
    order = c.attributes.get("perm", range(len(c.shape()))[::-1])
    return c.move(lambda t: t.transpose(0, *(k + 1 for k in order)))


def _squeeze(c: Call) -> Value:
    axes = c.integers(1, "axes", [k for k, size in enumerate(c.shape()) if size == 1])
    rank = len(c.shape())
    return c.move(lambda t: t.squeeze(tuple(1 + (a + rank if a < 0 else a) for a in axes)))


def _unsqueeze(c: Call) -> Value:
    axes = c.integers(1, "axes")
    rank = len(c.shape()) + len(axes)
    return c.move(lambda t: np.expand_dims(t, tuple(1 + (a + rank if a < 0 else a) for a in axes)))


def _expand(c: Call) -> Value:
    to = np.broadcast_shapes(c.shape(), tuple(c.integers(1, "shape")))
    return c.move(
        lambda t: np.broadcast_to(t.reshape(len(t), *[1] * (len(to) - t.ndim + 1), *t.shape[1:]), (len(t), *to))
    )


def _slice(c: Call) -> Value:
    starts, ends = c.integers(1, "starts"), c.integers(2, "ends")
    axes, steps = c.integers(3, "axes", list(range(len(starts)))), c.integers(4, "steps", [1] * len(starts))
    shape, cut = c.shape(), [slice(None)] * len(c.shape())
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == 0:
            raise Unusable("a step of 0")
        first, stop, _ = slice(start, end, step).indices(shape[axis])
        cut[axis] = slice(first, None if stop < 0 else stop, step)
    return c.move(lambda t: t[(slice(None), *cut)])


def _pad(c: Call) -> Value:
    pads, rank = c.integers(1, "pads"), len(c.shape())
    value = np.asarray(float(c.attributes["value"])) if "value" in c.attributes else c.numbers(2, np.asarray(0.0))
    axes = c.integers(3, "axes", list(range(rank)))
    if (
        c.attributes.get("mode", b"constant") != b"constant"
        or min(pads) < 0
        or value.size != 1
        or len(pads) != 2 * len(axes)
    ):
        raise Unusable("pads other than by a constant")
    width = [(0, 0)] * rank
    for k, axis in enumerate(axes):
        width[axis] = (pads[k], pads[k + len(axes)])
    moved = c.tensor().moved(lambda t: np.pad(t, [(0, 0), *width]))
    moved.T[c.affine.n] += np.pad(np.zeros(c.shape()), width, constant_values=float(value.ravel()[0]))  # onto zeros
    return moved


def _concat(c: Call) -> Value:
    axis = int(c.attributes["axis"])
    axis += len(c.shape()) if axis < 0 else 0
    if not any(isinstance(value, Tensor) for value in c.values):
        return np.concatenate([value for value in c.values if isinstance(value, np.ndarray)], axis=axis)
    parts = [c.tensor(k) for k in range(len(c.values))]
    columns = max(len(part.T) for part in parts)
    wide = [np.concatenate([p.T, np.zeros((columns - len(p.T), *p.shape))]) for p in parts]
    return Tensor(np.concatenate(wide, axis=axis + 1), np.concatenate([p.e for p in parts], axis=axis))


def split(c: Call) -> list[Value]:
    """The outputs of Split."""
    axis = int(c.attributes.get("axis", 0)) % len(c.shape())
    size = c.shape()[axis]
    part = -(-size // c.outputs)
    parts = c.integers(1, "split", [max(0, min(part, size - k * part)) for k in range(c.outputs)])
    if sum(parts) != size or len(parts) != c.outputs:
        raise Unusable("the parts do not fit")
    ends = np.cumsum(parts)
    return [
        c.move(lambda t, a=end - n, b=end: t[(*[slice(None)] * (axis + 1), slice(a, b))])  # type: ignore[misc]
        for n, end in zip(parts, ends, strict=True)
    ]


def _identity(c: Call) -> Value:
    return c.values[0]


def _constant(c: Call) -> Numbers:
    from onnx import numpy_helper  # noqa: PLC0415 - the only tensor in an attribute

    if "value" in c.attributes:
        return np.asarray(numpy_helper.to_array(c.attributes["value"]))
    for name, kind in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in c.attributes:
            return np.asarray(c.attributes[name], dtype=kind)
    raise Unusable("a constant that is no number")


MOVE: dict[str, Callable[[Call], Value]] = {
    "Identity": _identity,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Slice": _slice,
    "Pad": _pad,
    "Concat": _concat,
    "Constant": _constant,
}
"""Operator -> its one output."""
