"""Operators that only move elements: read by sending element numbers through the ONNX reference implementation.

Every element of every input gets a number; what comes out says where each element of the output came from. So all
versions and attributes of these operators are read by one function, and rows of `Gather` are all that remains.
"""

from __future__ import annotations

import numpy as np

from redy.errors import InputError
from redy.formats.reading.graph import Graph, Op, Refused, Tensor, Value, label, reads
from redy.formats.reading.reference import run_node
from redy.model import Gather, Operator

MOVEMENTS = (
    "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Split", "Slice", "Pad", "Gather",
    "GatherElements", "GatherND", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Where", "CenterCropPad",
)  # fmt: skip


@reads(*MOVEMENTS)
def read_movement(graph: Graph, op: Op) -> list[Tensor]:
    """Every output as one `Gather` term for each input it takes elements from, and a bias for constants."""
    data = _data_places(op)
    inputs, owners = list(op.inputs), []
    offset = 1  # 0 stands for a padded zero.
    for place in data:
        tensor = op.inputs[place]
        shape = graph.full_shape(tensor)
        size = int(np.prod(shape, dtype=np.int64))
        inputs[place] = (offset + np.arange(size)).reshape(shape)
        owners.append((tensor, offset, size))
        offset += size
    if any(isinstance(tensor, Value) for tensor in inputs):
        raise Refused("an index or a shape depends on the input")
    fill = _fill_value(op)
    node = op.node
    if fill:
        if op.kind == "Pad" and len(inputs) > 2:
            inputs[2] = np.asarray(0, dtype=np.int64)
        else:
            node = type(op.node).FromString(op.node.SerializeToString())
            kept = [entry for entry in node.attribute if entry.name != "value"]
            del node.attribute[:]
            node.attribute.extend(kept)
    outputs = run_node(node, inputs, graph.opsets)
    return [
        _from_numbers(graph, op, str(name), np.asarray(numbers), owners, fill) if name else None
        for name, numbers in zip(op.node.output, outputs, strict=True)
    ]


def _data_places(op: Op) -> list[int]:
    if op.kind == "Concat":
        return list(range(len(op.inputs)))
    return [1, 2] if op.kind == "Where" else [0]


def _fill_value(op: Op) -> float:
    if op.kind != "Pad" or op.attribute("mode", "constant") != "constant":
        return 0.0
    tensor = op.input(2)
    if isinstance(tensor, Value):
        raise Refused("the padding value depends on the input")
    given = op.attribute("value", 0.0) if tensor is None else np.ravel(tensor)[0] if np.size(tensor) else 0.0
    return float(op.finite(np.asarray(given)))


def _from_numbers(
    graph: Graph, op: Op, name: str, numbers: np.ndarray, owners: list[tuple[Tensor, int, int]], fill: float
) -> Tensor:
    """The output whose elements carry `numbers`: offset of the input plus flat place, 0 for padding."""
    batched, rows = _one_sample(graph, op, numbers, owners)
    terms: list[tuple[Value, Operator]] = []
    bias = np.where(rows == 0, fill, 0.0)
    for tensor, offset, size in owners:
        mine = (rows >= offset) & (rows < offset + size)
        if not mine.any():
            continue
        if isinstance(tensor, Value):
            terms.append((tensor, Gather(np.where(mine, rows - offset, -1), tensor.shape)))
        else:
            flat = op.finite(np.ravel(tensor))  # type: ignore[arg-type]
            bias = np.where(mine, flat[np.where(mine, rows - offset, 0)], bias)
    if len(terms) == 1 and _is_identity(terms[0][1]) and not bias.any() and rows.shape == terms[0][0].shape:
        return Value(terms[0][0].name, rows.shape, batched)
    return graph.affine(name, terms, bias, batched=batched)


def _one_sample(
    graph: Graph, op: Op, numbers: np.ndarray, owners: list[tuple[Tensor, int, int]]
) -> tuple[bool, np.ndarray]:
    """Whether the output keeps the batch as its first axis, and the numbers of the first sample.

    Raises:
        Refused: samples of the batch are mixed.
    """
    batched = numbers.ndim > 0 and numbers.shape[0] == graph.batch and _keeps_batch(op, graph)
    if graph.batch == 1:
        return (True, numbers[0]) if batched else (False, numbers)
    if not batched:
        raise Refused("the samples of a batch are mixed")
    for sample in range(graph.batch):
        expected = numbers[0].copy()
        for tensor, offset, size in owners:
            if isinstance(tensor, Value):
                mine = (expected >= offset) & (expected < offset + size)
                each = size // graph.batch
                if (expected[mine] >= offset + each).any():
                    raise Refused("the samples of a batch are mixed")
                expected[mine] += sample * each
            elif (numbers[sample] != expected).any():
                values = np.concatenate([[0.0], np.ravel(tensor)])  # type: ignore[arg-type]
                mine = (expected >= offset) & (expected < offset + size)
                theirs = numbers[sample][mine] - offset + 1
                if not np.array_equal(values[theirs], values[expected[mine] - offset + 1]):
                    raise Refused("a constant differs along the batch axis")
                expected[mine] = numbers[sample][mine]
        if not np.array_equal(numbers[sample], expected):
            raise Refused("the samples of a batch are mixed")
    return True, numbers[0]


def _keeps_batch(op: Op, graph: Graph) -> bool:
    """With batch size 1 any first axis of length 1 can serve as the batch, unless there is none to keep."""
    values = [tensor for tensor in op.inputs if isinstance(tensor, Value)]
    if op.kind == "Squeeze":
        axes = op.attribute("axes") if op.opset < 13 else op.input(1)
        rank = len(graph.full_shape(values[0]))
        if axes is None or any(int(axis) % rank == 0 for axis in np.ravel(axes)):  # type: ignore[arg-type]
            return False
    return graph.batch > 1 or any(value.batched for value in values) or op.kind in {"Reshape", "Unsqueeze", "Flatten"}


def _is_identity(operator: Operator) -> bool:
    return (
        isinstance(operator, Gather)
        and np.array_equal(operator.index.ravel(), np.arange(operator.index.size))
        and (operator.index.size == int(np.prod(operator.in_shape, dtype=np.int64)))
    )


@reads("Identity", "Dropout")
def read_identity(_graph: Graph, op: Op) -> list[Tensor]:
    """The value itself; Dropout does nothing at inference."""
    op.only_first_output()
    if op.kind == "Dropout" and _drops(op):
        raise InputError(
            f"{label(op.node)}: is in training mode, so it draws random numbers and nothing can be proved about the "
            "outputs; export the network for inference"
        )
    return [op.value()]


def _drops(op: Op) -> bool:
    """Whether Dropout may drop something: in training mode, unless its ratio is 0."""
    if op.opset < 7:
        return not op.attribute("is_test", 0) and op.attribute("ratio", 0.5) != 0
    training, ratio = op.input(2), op.input(1)
    if training is None or (isinstance(training, np.ndarray) and not training.any()):
        return False
    return not (isinstance(ratio, np.ndarray) and not ratio.any())
