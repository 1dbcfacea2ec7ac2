"""Operators that read fewer elements: columns that are zero, and units that are gone on either side.

A *column* of an operator is what one element of its source does to the result. Every operator says which of them can be
made zero without giving up its form: a matrix any of them, a convolution whole channels.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from redy.model import Array, Dense, Gather, Operator, Positionwise, Scale, Shape
from redy.model.convolution import AveragePool, Conv, ConvTranspose

Mask = NDArray[np.bool_]


def reached(operator: Operator, elements: Mask) -> Mask:
    """Which results depend on any of the elements (flattened, as is the result)."""
    if isinstance(operator, Dense):
        return np.asarray((operator.weight[:, elements] != 0).any(axis=1))
    spread = operator.spread(elements.astype(np.float64).reshape(1, *operator.in_shape))
    return np.asarray(spread.ravel() > 0)


def reaching(operator: Operator, results: Mask) -> Mask:
    """Which elements of the source any of the results depends on (flattened, as are the results)."""
    if isinstance(operator, Dense):
        return np.asarray((operator.weight[results] != 0).any(axis=0))
    spread = operator.adjoint_spread(results.astype(np.float64).reshape(1, *operator.out_shape))
    return np.asarray(spread.ravel() > 0)


def removable(operator: Operator, elements: Mask, values: Array) -> Mask:
    """Those of the constant elements (flattened) whose columns can become zero without making the bias larger.

    Args:
        operator: reads them.
        elements: which elements of its source are constant.
        values: of the constant ones; 0 elsewhere.
    """
    if elements.all() or isinstance(operator, Dense | Gather | Scale):
        return elements
    if isinstance(operator, Positionwise):
        by_feature = elements.reshape(-1, operator.in_shape[-1])
        return np.broadcast_to(by_feature.all(axis=0), by_feature.shape).ravel()
    if isinstance(operator, Conv | ConvTranspose):
        rows = elements.reshape(operator.in_shape[0], -1)
        held = values.reshape(rows.shape)
        # Behind a border of zeros a constant other than 0 needs a bias of its own at every position.
        uniform = (held == held[:, :1]).all(axis=1) & (isinstance(operator, Conv) and not any(operator.windows.pads))
        whole = rows.all(axis=1) & (uniform | (held == 0).all(axis=1))
        return np.broadcast_to(whole[:, None], rows.shape).ravel()
    return np.zeros_like(elements)


def without(operator: Operator, elements: Mask) -> Operator | None:
    """The operator with zeros in the columns of `elements` (from `removable`); None where nothing is left."""
    if elements.all():
        return None
    if not elements.any():
        return operator
    left = ~elements.reshape(operator.in_shape)
    if isinstance(operator, Dense):
        weight = np.where(elements, 0.0, operator.weight)
        return replace(operator, weight=weight) if weight.any() else None
    if isinstance(operator, Gather):
        index = np.where(np.append(left.ravel(), False)[operator.index], operator.index, -1)
        return Gather(index, operator.in_shape) if (index >= 0).any() else None
    if isinstance(operator, Scale):
        return Scale(np.where(left, operator.factor, 0.0))
    if isinstance(operator, Positionwise):
        return replace(operator, weight=operator.weight * left.reshape(-1, operator.in_shape[-1])[0])
    if isinstance(operator, Conv):
        channels = left.reshape(operator.channels, -1)[:, 0]
        inner = operator.weight.shape[1]
        group = np.repeat(np.arange(operator.groups), operator.weight.shape[0] // operator.groups)
        kept = channels[group[:, None] * inner + np.arange(inner)]
        return replace(
            operator, weight=operator.weight * kept.reshape(*kept.shape, *(1,) * len(operator.windows.kernel))
        )
    if isinstance(operator, ConvTranspose):
        channels = left.reshape(operator.in_shape[0], -1)[:, 0]
        weight = operator.conv.weight * channels.reshape(-1, *(1,) * (operator.conv.weight.ndim - 1))
        return ConvTranspose(replace(operator.conv, weight=weight))
    raise TypeError(f"columns of {type(operator).__name__} cannot become zero")


def restricted(
    operator: Operator, rows: NDArray[np.int64], columns: NDArray[np.int64], shapes: tuple[Shape, Shape]
) -> Operator:
    """The operator between what is left of its source and of its result.

    Args:
        operator: reads the source.
        rows: elements of the result that are left (flattened, ascending).
        columns: elements of the source that are left (flattened, ascending).
        shapes: of what is left of the source and of the result.
    """
    inner, outer = shapes
    if isinstance(operator, Dense):
        return Dense(operator.weight[np.ix_(rows, columns)], inner, outer)
    if isinstance(operator, Gather):
        place = np.full(math.prod(operator.in_shape) + 1, -1)
        place[columns] = np.arange(columns.size)
        return Gather(place[operator.index.ravel()[rows]].reshape(outer), inner)
    if isinstance(operator, Scale):
        return Scale(operator.factor.ravel()[rows].reshape(outer))
    if isinstance(operator, Positionwise):
        out = np.unique(rows % operator.out_shape[-1])
        return Positionwise(operator.weight[np.ix_(out, np.unique(columns % operator.in_shape[-1]))], inner)
    into, out = (_channels(index, shape) for index, shape in ((columns, operator.in_shape), (rows, operator.out_shape)))
    if isinstance(operator, Conv):
        if operator.groups > 1:
            return Conv(operator.weight[out], len(into), operator.windows, len(into))
        return Conv(operator.weight[np.ix_(out, into)], len(into), operator.windows)
    if isinstance(operator, ConvTranspose):
        return ConvTranspose(Conv(operator.conv.weight[np.ix_(into, out)], len(out), operator.conv.windows))
    if isinstance(operator, AveragePool):
        return AveragePool(len(into), operator.windows, operator.divisor)
    raise TypeError(f"{type(operator).__name__} cannot be restricted")


def _channels(index: NDArray[np.int64], shape: Shape) -> NDArray[np.int64]:
    return np.unique(index // math.prod(shape[1:]))
