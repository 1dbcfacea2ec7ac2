"""Convolution, transposed convolution and average pooling as linear operators (any number of spatial axes).

All work on tensors (C, *spatial). `Windows` holds the geometry that they share: which elements of a padded input each
output position sees. Convolution is a matrix product on the unfolded windows (im2col); its adjoint folds them back.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from redy.model.box import Array, frozen
from redy.model.operators import Shape, _Common

_CHUNK = 1 << 23  # Elements of unfolded windows held at once (64 MiB), so that large batches stay within memory.


@dataclass(frozen=True, slots=True)
class Windows:
    """The geometry of a sliding window.

    Attributes:
        spatial: the input's spatial shape, without padding.
        kernel, strides, dilations: one number for each spatial axis.
        pads: zeros added, as (begin of each axis..., end of each axis...), like ONNX.

    Raises:
        ValueError: the numbers do not fit together, or a window does not fit into the padded input.
    """

    spatial: Shape
    kernel: Shape
    strides: Shape
    dilations: Shape
    pads: Shape

    def __post_init__(self) -> None:
        rank = len(self.spatial)
        if not (len(self.kernel) == len(self.strides) == len(self.dilations) == rank and len(self.pads) == 2 * rank):
            raise ValueError(f"kernel {self.kernel}, strides, dilations or pads do not fit {rank} spatial axes")
        if min((*self.kernel, *self.strides, *self.dilations), default=1) < 1 or min(self.pads, default=0) < 0:
            raise ValueError("kernel, strides and dilations must be positive and pads must not be negative")
        if min(self.out_spatial, default=1) < 1:
            raise ValueError(f"a window of {self.kernel} does not fit into {self.spatial} with pads {self.pads}")

    @property
    def padded(self) -> Shape:
        """The spatial shape with padding."""
        rank = len(self.spatial)
        return tuple(s + self.pads[i] + self.pads[rank + i] for i, s in enumerate(self.spatial))

    @property
    def out_spatial(self) -> Shape:
        """The number of window positions along each axis."""
        return tuple(
            (p - d * (k - 1) - 1) // s + 1
            for p, k, s, d in zip(self.padded, self.kernel, self.strides, self.dilations, strict=True)
        )

    def unfold(self, x: Array) -> Array:
        """(n, C, *spatial) -> (n, C, *out_spatial, *kernel), a view of the padded input."""
        rank = len(self.spatial)
        if any(self.pads):
            x = np.pad(x, [(0, 0), (0, 0), *((self.pads[i], self.pads[rank + i]) for i in range(rank))])
        reach = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))
        view = sliding_window_view(x, reach, axis=tuple(range(2, 2 + rank)))
        steps = (*(slice(None, None, s) for s in self.strides), *(slice(None, None, d) for d in self.dilations))
        return np.asarray(view[(slice(None), slice(None), *steps)])

    def fold(self, windows: Array) -> Array:
        """The adjoint of `unfold`, overlaps added: (n, C, *kernel, *out_spatial) -> (n, C, *spatial)."""
        result = np.zeros((*windows.shape[:2], *self.padded))
        both = (slice(None), slice(None))
        for place in itertools.product(*(range(k) for k in self.kernel)):
            steps = zip(place, self.dilations, self.strides, self.out_spatial, strict=True)
            target: tuple[Any, ...] = (*both, *(slice(p * d, p * d + s * (o - 1) + 1, s) for p, d, s, o in steps))
            source: tuple[Any, ...] = (*both, *place)
            result[target] += windows[source]
        inner: tuple[Any, ...] = (*both, *(slice(self.pads[i], self.pads[i] + s) for i, s in enumerate(self.spatial)))
        return np.asarray(result[inner])

    def counts(self) -> Array:
        """How many elements of the window lie in the input and not in the padding, (*out_spatial)."""
        ones = self.unfold(np.ones((1, 1, *self.spatial)))
        rank = len(self.spatial)
        return np.asarray(ones.sum(axis=tuple(range(-rank, 0)))[0, 0])


def _chunks(n: int, each: int) -> Iterator[slice]:
    step = max(1, _CHUNK // max(each, 1))
    return (slice(start, start + step) for start in range(0, n, step))


def _in_chunks(x: Array, out_shape: Shape, each: int, call: Callable[[Array], Array]) -> Array:
    result = np.empty((len(x), *out_shape))
    for part in _chunks(len(x), each):
        result[part] = call(x[part])
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Conv(_Common):
    """A convolution with `weight` (M, C / groups, *kernel) on (C, *spatial), as ONNX Conv without its bias.

    Raises:
        ValueError: weight, groups, window and channels do not fit together.
    """

    weight: Array
    channels: int
    windows: Windows
    groups: int = 1

    def __post_init__(self) -> None:
        weight = frozen(self.weight)
        if weight.shape[2:] != self.windows.kernel:
            raise ValueError(f"weight {weight.shape} does not have the kernel {self.windows.kernel}")
        if self.groups < 1 or self.channels != weight.shape[1] * self.groups or weight.shape[0] % self.groups:
            raise ValueError(f"weight {weight.shape} in {self.groups} groups does not take {self.channels} channels")
        object.__setattr__(self, "weight", weight)

    @property
    def in_shape(self) -> Shape:
        """(C, *spatial)."""
        return (self.channels, *self.windows.spatial)

    @property
    def out_shape(self) -> Shape:
        """(M, *out_spatial)."""
        return (int(self.weight.shape[0]), *self.windows.out_spatial)

    @property
    def macs(self) -> int:
        """Multiply-adds of one application (products with padding counted)."""
        return int(self.weight.size) * math.prod(self.windows.out_spatial)

    @property
    def parameters(self) -> int:
        """Stored weights."""
        return int(self.weight.size)

    @property
    def fan_in(self) -> int:
        """Products per output; `adjoint` sums at most as many, or weight.size / channels if that is more."""
        window = math.prod(self.windows.kernel)
        return max(int(self.weight.shape[1]), int(self.weight.shape[0]) // self.groups) * window

    def apply(self, x: Array) -> Array:
        """W x."""
        return self._forward(x, self.weight)

    def spread(self, radius: Array) -> Array:
        """|W| r."""
        return self._forward(radius, np.abs(self.weight))

    def adjoint(self, form: Array) -> Array:
        """W^T c: a transposed convolution."""
        return self._backward(form, self.weight)

    def adjoint_spread(self, form: Array) -> Array:
        """|W|^T |c|."""
        return self._backward(np.abs(form), np.abs(self.weight))

    @property
    def _unfolded(self) -> int:
        return self.channels * math.prod(self.windows.kernel) * math.prod(self.windows.out_spatial)

    def _forward(self, x: Array, weight: Array) -> Array:
        groups, rank = self.groups, len(self.windows.spatial)
        matrix = weight.reshape(groups, weight.shape[0] // groups, -1)
        order = (0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))

        def call(part: Array) -> Array:
            columns = self.windows.unfold(part).transpose(order)
            columns = columns.reshape(len(part), groups, matrix.shape[2], -1)
            return np.asarray((matrix @ columns).reshape(len(part), *self.out_shape))

        return _in_chunks(x, self.out_shape, self._unfolded, call)

    def _backward(self, form: Array, weight: Array) -> Array:
        groups, windows = self.groups, self.windows
        matrix = weight.reshape(groups, weight.shape[0] // groups, -1)

        def call(part: Array) -> Array:
            rows = part.reshape(len(part), groups, matrix.shape[1], -1)
            columns = matrix.transpose(0, 2, 1) @ rows
            return windows.fold(columns.reshape(len(part), self.channels, *windows.kernel, *windows.out_spatial))

        return _in_chunks(form, self.in_shape, self._unfolded, call)


@dataclass(frozen=True, slots=True, eq=False)
class ConvTranspose(_Common):
    """The adjoint of a convolution, as ONNX ConvTranspose without its bias (`conv.weight` is the ONNX weight)."""

    conv: Conv

    @property
    def in_shape(self) -> Shape:
        """The convolution's output shape."""
        return self.conv.out_shape

    @property
    def out_shape(self) -> Shape:
        """The convolution's input shape."""
        return self.conv.in_shape

    @property
    def macs(self) -> int:
        """Multiply-adds of one application."""
        return self.conv.macs

    @property
    def parameters(self) -> int:
        """Stored weights."""
        return self.conv.parameters

    @property
    def fan_in(self) -> int:
        """Products per output, at most."""
        return self.conv.fan_in

    def apply(self, x: Array) -> Array:
        """W x."""
        return self.conv.adjoint(x)

    def spread(self, radius: Array) -> Array:
        """|W| r."""
        return self.conv._backward(radius, np.abs(self.conv.weight))  # noqa: SLF001 - both are one operator

    def adjoint(self, form: Array) -> Array:
        """W^T c."""
        return self.conv.apply(form)

    def adjoint_spread(self, form: Array) -> Array:
        """|W|^T |c|."""
        return self.conv.spread(np.abs(form))


@dataclass(frozen=True, slots=True, eq=False)
class AveragePool(_Common):
    """The mean over each window of every channel.

    `divisor` (*out_spatial) is the number each window's sum is divided by: the number of elements outside the padding,
    or the window's size where ONNX says `count_include_pad` (the last window of `ceil_mode` may count fewer).
    """

    channels: int
    windows: Windows
    divisor: Array

    def __post_init__(self) -> None:
        divisor = frozen(np.broadcast_to(self.divisor, self.windows.out_spatial))
        if not (divisor > 0).all():
            raise ValueError("a window lies wholly in the padding")
        object.__setattr__(self, "divisor", divisor)

    @property
    def in_shape(self) -> Shape:
        """(C, *spatial)."""
        return (self.channels, *self.windows.spatial)

    @property
    def out_shape(self) -> Shape:
        """(C, *out_spatial)."""
        return (self.channels, *self.windows.out_spatial)

    @property
    def macs(self) -> int:
        """Additions of one application, counted like multiply-adds."""
        return math.prod(self.out_shape) * math.prod(self.windows.kernel)

    @property
    def parameters(self) -> int:
        """Pooling stores no weights."""
        return 0

    @property
    def fan_in(self) -> int:
        """Terms per output, and one division."""
        return math.prod(self.windows.kernel) + 1

    def apply(self, x: Array) -> Array:
        """The means."""
        rank = len(self.windows.spatial)
        axes = tuple(range(-rank, 0))
        return np.asarray(self.windows.unfold(x).sum(axis=axes) / self.divisor)

    def spread(self, radius: Array) -> Array:
        """The means of the radii."""
        return self.apply(radius)

    def adjoint(self, form: Array) -> Array:
        """Every mean's share back to the elements of its window."""
        rank, kernel = len(self.windows.spatial), self.windows.kernel
        shares = (form / self.divisor).reshape(*form.shape[:2], *(1,) * rank, *form.shape[2:])
        return self.windows.fold(np.broadcast_to(shares, (*form.shape[:2], *kernel, *form.shape[2:])))

    def adjoint_spread(self, form: Array) -> Array:
        """The same for absolute values."""
        return self.adjoint(np.abs(form))
