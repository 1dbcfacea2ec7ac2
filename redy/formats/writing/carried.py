"""Nodes that are carried through: smooth functions, max pooling, gates, and foreign ONNX nodes as they were."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from redy.formats.writing.builder import Builder
from redy.model import Elementwise, Foreign, MaxPool, Network

_SINCE = {"Gelu": 20, "Mish": 18, "HardSwish": 14, "Swish": 24}
"""Opset in which an elementwise operator appeared, where that is after 13."""


def write_elementwise(builder: Builder, node: Elementwise) -> None:
    """The ONNX operator with its attributes."""
    builder.require(_SINCE.get(node.operator, 13))
    builder.node(node.operator, [builder.tensor(node.source)], node.name, **dict(node.attributes))


def write_max_pool(builder: Builder, node: MaxPool) -> None:
    """MaxPool with the geometry that the node keeps."""
    attributes = {name: list(numbers) for name, numbers in node.attributes.items()}  # type: ignore[call-overload]
    builder.node("MaxPool", [builder.tensor(node.source)], node.name, **attributes)


def write_foreign(builder: Builder, node: Foreign, network: Network) -> None:
    """The node as it was in the file; all values that it computes are written when the first is reached."""
    family = [
        other
        for other in network.nodes
        if isinstance(other, Foreign) and other.payload == node.payload and other.inputs == node.inputs
    ]
    if family[0] is not node:
        return
    model = ModelProto.FromString(node.payload)
    original = model.graph.node[0]
    named = {output: place for place, output in enumerate(name for name in original.output if name)}
    wanted = {member.output: member.name for member in family}
    copy = NodeProto()
    copy.CopyFrom(original)
    sources = {info.name: (source, info) for info, source in zip(model.graph.input, node.inputs, strict=True)}
    renamed = {}
    for name, (source, info) in sources.items():
        tensor = builder.tensor(source)
        if len(info.type.tensor_type.shape.dim) == len(builder.shapes[source]):
            axis = builder.whole_numbers("batch_axis", [0])
            tensor = builder.node("Squeeze", [tensor, axis], builder.fresh(f"{source}.sample"))
        if name not in original.input and tensor != name:  # A subgraph reads it under its old name.
            builder.taken.add(name)
            builder.node("Identity", [tensor], name)
        renamed[name] = tensor
    for initializer in model.graph.initializer:
        array = numpy_helper.to_array(initializer)
        name = initializer.name
        if name in original.input:
            name = builder.fresh(name)
        builder.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        renamed[initializer.name] = name
    del copy.input[:]
    copy.input.extend(renamed.get(name, name) for name in original.input)
    del copy.output[:]
    unbatched = []
    for name, info in zip((name for name in original.output if name), model.graph.output, strict=True):
        target = wanted.get(named[name])
        if target is not None and len(info.type.tensor_type.shape.dim) == len(builder.shapes[target]):
            unbatched.append((builder.fresh(f"{target}.sample"), target))
            target = unbatched[-1][0]
        copy.output.append(target or builder.fresh(name))
    copy.name = node.name
    builder.nodes.append(copy)
    for sample, target in unbatched:
        builder.node("Unsqueeze", [sample, builder.whole_numbers("batch_axis", [0])], target)
