"""Nodes that are carried through: smooth functions, max pooling, gates, and foreign ONNX nodes as they were."""

from __future__ import annotations

from onnx import AttributeProto, ModelProto, NodeProto, ValueInfoProto, helper, version_converter

from redy.errors import InputError
from redy.formats.writing.builder import Builder
from redy.model import Affine, Elementwise, Foreign, MaxPool, Network, Node
from redy.model.convolution import AveragePool

_SINCE = {"Gelu": 20, "Mish": 18, "HardSwish": 14, "Swish": 24}
"""Opset in which an elementwise operator appeared, where that is after 13."""


def write_elementwise(builder: Builder, node: Elementwise) -> None:
    """The ONNX operator with its attributes; a rounding is a cast to the narrower type and back."""
    if node.operator == "Cast":
        rounded = builder.fresh(f"{node.name}.rounded")
        builder.node("Cast", [builder.tensor(node.source)], rounded, **dict(node.attributes))
        builder.node("Cast", [rounded], node.name, to=helper.np_dtype_to_tensor_dtype(builder.dtype))
        return
    builder.node(node.operator, [builder.tensor(node.source)], node.name, **dict(node.attributes))


def write_max_pool(builder: Builder, node: MaxPool) -> None:
    """MaxPool with the geometry that the node keeps."""
    attributes = {name: list(numbers) for name, numbers in node.attributes.items()}  # type: ignore[call-overload]
    builder.node("MaxPool", [builder.tensor(node.source)], node.name, **attributes)


def needed_opset(node: Node) -> int:
    """The first opset in which ONNX has what the node is written with."""
    if isinstance(node, Elementwise):
        return _SINCE.get(node.operator, 13)
    pools = [term.operator for term in node.terms] if isinstance(node, Affine) else []
    return 19 if any(isinstance(pool, AveragePool) and max(pool.windows.dilations) > 1 for pool in pools) else 13


def write_foreign(builder: Builder, node: Foreign, network: Network) -> None:
    """The node as it was in the file; all values that it computes are written when the first is reached.

    Raises:
        InputError: the node cannot be brought to the model's opset.
    """
    family = [
        other
        for other in network.nodes
        if isinstance(other, Foreign) and other.payload == node.payload and other.inputs == node.inputs
    ]
    if family[0] is not node:
        return
    body = _at_opset(node, builder.opset).graph
    renamed: dict[str, str] = {}
    for info, source in zip(body.input, node.inputs, strict=True):
        renamed[info.name] = builder.tensor(source)
        if _rank(info) == len(builder.shapes[source]):
            axis = builder.whole_numbers("batch_axis", [0])
            renamed[info.name] = builder.node("Squeeze", [renamed[info.name], axis], builder.fresh(f"{source}.sample"))
    wanted = {member.output: member.name for member in family}
    unbatched: list[tuple[str, str]] = []
    for place, info in enumerate(body.output):
        target = wanted.get(place)
        if target is not None and _rank(info) == len(builder.shapes[target]):
            unbatched.append((builder.fresh(f"{target}.sample"), target))
            target = unbatched[-1][0]
        renamed[info.name] = target or builder.fresh(info.name)
    for initializer in body.initializer:
        renamed[initializer.name] = builder.fresh(initializer.name)
        initializer.name = renamed[initializer.name]
        builder.initializers.append(initializer)
    for part in body.node:
        _rename(part, renamed, builder)
        builder.nodes.append(part)
    for sample, target in unbatched:
        builder.node("Unsqueeze", [sample, builder.whole_numbers("batch_axis", [0])], target)


def _rank(info: ValueInfoProto) -> int:
    return len(info.type.tensor_type.shape.dim)


def _at_opset(node: Foreign, opset: int) -> ModelProto:
    model: ModelProto = ModelProto.FromString(node.payload)
    if next((entry.version for entry in model.opset_import if not entry.domain), opset) == opset:
        return model
    if node.operator.startswith(tuple(f"{entry.domain}::" for entry in model.opset_import if entry.domain)):
        return model
    try:
        converted: ModelProto = version_converter.convert_version(model, opset)
    except Exception as error:  # The converter raises many kinds of errors.
        raise InputError(f"{node.name}: {node.operator} cannot be brought to opset {opset} ({error})") from error
    return converted


def _rename(part: NodeProto, renamed: dict[str, str], builder: Builder) -> None:
    """Renames what the node and its subgraphs read and what it writes."""
    for place, name in enumerate(part.output):
        if name:
            part.output[place] = renamed.setdefault(name, builder.fresh(name)) if name not in renamed else renamed[name]
    _rename_inputs(part, renamed)
    part.name = next(name for name in part.output if name)


def _rename_inputs(part: NodeProto, renamed: dict[str, str]) -> None:
    for place, name in enumerate(part.input):
        part.input[place] = renamed.get(name, name)
    for attribute in part.attribute:
        if attribute.type not in {AttributeProto.GRAPH, AttributeProto.GRAPHS}:
            continue
        for body in [attribute.g, *attribute.graphs]:
            own = {info.name for info in body.input} | {name for inner in body.node for name in inner.output}
            outside = {old: new for old, new in renamed.items() if old not in own}
            for inner in body.node:
                _rename_inputs(inner, outside)
            for info in body.output:
                info.name = outside.get(info.name, info.name)
