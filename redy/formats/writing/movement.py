"""Moving elements: Reshape, Transpose, Slice, Pad and Concat where they fit, else Gather on the flattened source."""

from __future__ import annotations

import itertools
import math

import numpy as np

from redy.formats.writing.builder import Builder
from redy.model import Affine, Gather, Shape
from redy.model.compose import is_identity, is_reshape

_MOST_AXES = 5
"""Transpositions are recognised up to this many axes (120 permutations)."""


def write_gather(builder: Builder, value: str, operator: Gather, out: str) -> str:
    """The gathered elements of a value; the value's own tensor where nothing moves."""
    source, index, shape = builder.tensor(value), operator.index, operator.in_shape
    if is_identity(operator):
        return source
    if is_reshape(operator):
        return builder.reshape(source, index.shape, out)
    order = _transposition(index, shape)
    if order is not None:
        return builder.node("Transpose", [source], out, perm=[0, *(axis + 1 for axis in order)])
    cut = _slices(index, shape)
    if cut is not None:
        axes = range(1, len(shape) + 1)
        numbers = zip(("starts", "ends", "axes", "steps"), (*cut[:2], list(axes), cut[2]), strict=True)
        return builder.node(
            "Slice", [source, *(builder.whole_numbers(f"{out}.{name}", entries) for name, entries in numbers)], out
        )
    pads = _pads(index, shape)
    if pads is not None:
        begin, end = pads
        return builder.node("Pad", [source, builder.whole_numbers(f"{out}.pads", [0, *begin, 0, *end])], out)
    flat = builder.flat(value)
    if (index < 0).any():
        pad = builder.whole_numbers(f"{out}.pads", [0, 0, 0, 1])
        flat = builder.node("Pad", [flat, pad], builder.fresh(f"{out}.padded"))
    places = np.where(index < 0, math.prod(shape), index)
    return builder.node("Gather", [flat, builder.whole_numbers(f"{out}.index", places)], out, axis=1)


def _transposition(index: np.ndarray, shape: Shape) -> tuple[int, ...] | None:
    if index.ndim != len(shape) or index.ndim > _MOST_AXES or index.size != math.prod(shape):
        return None
    ids = np.arange(index.size).reshape(shape)
    for order in itertools.permutations(range(len(shape))):
        if ids.transpose(order).shape == index.shape and np.array_equal(ids.transpose(order), index):
            return order
    return None


def _slices(index: np.ndarray, shape: Shape) -> tuple[list[int], list[int], list[int]] | None:
    """starts, ends and steps along every axis if `index` is a regular part of the source."""
    if index.ndim != len(shape) or not index.size or (index < 0).any():
        return None
    origin = np.unravel_index(int(index.flat[0]), shape)
    starts = [int(place) for place in origin]
    steps = []
    for axis, count in enumerate(index.shape):
        if count == 1:
            steps.append(1)
            continue
        second = np.moveaxis(index, axis, 0)[1].flat[0]
        steps.append(int(np.unravel_index(int(second), shape)[axis]) - starts[axis])
    if min(steps, default=1) < 1:
        return None
    ends = [start + step * (count - 1) + 1 for start, step, count in zip(starts, steps, index.shape, strict=True)]
    part = tuple(slice(start, end, step) for start, end, step in zip(starts, ends, steps, strict=True))
    found = np.arange(math.prod(shape)).reshape(shape)[part]
    return (starts, ends, steps) if np.array_equal(found, index) else None


def _pads(index: np.ndarray, shape: Shape) -> tuple[list[int], list[int]] | None:
    """Zeros before and after along every axis if `index` is the whole source within a border."""
    if index.ndim != len(shape) or not (index >= 0).any():
        return None
    inside = np.argwhere(index >= 0)
    begin, end = inside.min(axis=0), inside.max(axis=0) + 1
    core = index[tuple(slice(b, e) for b, e in zip(begin, end, strict=True))]
    if core.shape != shape or not np.array_equal(core.ravel(), np.arange(core.size)):
        return None
    if (index >= 0).sum() != core.size:
        return None
    return [int(b) for b in begin], [int(n - e) for n, e in zip(index.shape, end, strict=True)]


def as_concat(builder: Builder, node: Affine) -> bool:
    """Writes the node as Concat if its terms fill blocks side by side along one axis; says whether it did."""
    if len(node.terms) < 2 or node.bias.any() or not node.shape:
        return False
    indices = []
    for term in node.terms:
        if not isinstance(term.operator, Gather):
            return False
        indices.append(term.operator.index)
    for axis in range(len(node.shape)):
        blocks = _blocks(indices, axis)
        if blocks is None:
            continue
        order = sorted(range(len(blocks)), key=lambda place: blocks[place][0])
        parts = []
        for place in order:
            start, end = blocks[place]
            term = node.terms[place]
            part = Gather(np.take(indices[place], range(start, end), axis=axis), term.operator.in_shape)
            parts.append(write_gather(builder, term.source, part, builder.fresh(f"{node.name}.part")))
        builder.node("Concat", parts, node.name, axis=axis + 1)
        return True
    return False


def _blocks(indices: list[np.ndarray], axis: int) -> list[tuple[int, int]] | None:
    """For each index the range along `axis` that it fills wholly, if together they fill everything once."""
    blocks = []
    for index in indices:
        others = tuple(a for a in range(index.ndim) if a != axis)
        some, every = (index >= 0).any(axis=others), (index >= 0).all(axis=others)
        places = np.flatnonzero(some)
        if not places.size or not np.array_equal(some, every) or places[-1] - places[0] + 1 != places.size:
            return None
        blocks.append((int(places[0]), int(places[-1]) + 1))
    edges = sorted(blocks)
    joined = all(left[1] == right[0] for left, right in itertools.pairwise(edges))
    return blocks if joined and edges[0][0] == 0 and edges[-1][1] == indices[0].shape[axis] else None
