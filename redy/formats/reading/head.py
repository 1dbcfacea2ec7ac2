"""The label head of a classifier: what stands behind its numbers and gives labels, maps or strings.

scikit-learn's exporter ends a classifier with ArgMax, ArrayFeatureExtractor, Cast and ZipMap. None of that is a number
per sample that could be bounded. So the file is cut in two: the *core*, whose outputs are the numbers that the head
reads (the probabilities), and the head, which is carried and written behind whatever the core becomes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

LABELS = frozenset({"ArrayFeatureExtractor", "ZipMap", "LabelEncoder", "FeatureVectorizer", "DictVectorizer"})
"""Operators of ai.onnx.ml that begin a label head."""
_CHOOSING = frozenset({"ArgMax", "ArgMin", "TopK"})
"""What picks a class belongs to the head where nothing else reads it."""


def has_head(model: ModelProto) -> bool:
    """Whether a model ends in labels."""
    return any(node.op_type in LABELS for node in model.graph.node)


def split_head(model: ModelProto) -> tuple[ModelProto, bytes]:
    """The model without its label head, and the head as `join_head` takes it; no bytes where there is none.

    The outputs of the core are the original's that are numbers, and then what the head reads.
    """
    head = _head_nodes(model.graph)
    if not head:
        return model, b""
    made = {name for node in head for name in node.output}
    weights = {tensor.name for tensor in model.graph.initializer}
    core_nodes = [node for node in model.graph.node if not any(node is other for other in head)]
    kept = [info for info in model.graph.output if info.name not in made]
    known = {info.name for info in kept}
    read = dict.fromkeys(n for node in head for n in _reads(node) if n and n not in made | weights | known)
    computed = {name for node in core_nodes for name in node.output} | {info.name for info in model.graph.input}
    core = ModelProto()
    core.CopyFrom(model)
    del core.graph.node[:], core.graph.output[:], core.graph.initializer[:]
    core.graph.node.extend(core_nodes)
    core.graph.output.extend([*kept, *(_port(model.graph, name) for name in read if name in computed)])
    needed = {name for node in core_nodes for name in _reads(node)} | {info.name for info in core.graph.output}
    core.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    own = [t for t in model.graph.initializer if any(t.name in _reads(node) for node in head)]
    carried = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    carried.graph.CopyFrom(helper.make_graph(head, "head", [], model.graph.output, own))
    return core, bytes(carried.SerializeToString(deterministic=True))


def join_head(model: ModelProto, head: bytes) -> ModelProto:
    """The model with a head behind it; tensors that the head reads keep their names in between."""
    if not head:
        return model
    carried = ModelProto.FromString(head)
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    taken |= {tensor.name for tensor in model.graph.initializer}
    made = {tensor.name for tensor in carried.graph.initializer} | {n for x in carried.graph.node for n in x.output}
    renamed = {name: _unused(name, taken) for name in sorted(made & taken)}
    ports = {info.name: info for info in model.graph.output}
    result = ModelProto()
    result.CopyFrom(model)
    for node in carried.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        result.graph.node.append(node)
    for tensor in carried.graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
        result.graph.initializer.append(tensor)
    del result.graph.output[:]
    result.graph.output.extend(ports.get(info.name, info) for info in carried.graph.output)
    versions = {entry.domain for entry in result.opset_import}
    result.opset_import.extend(entry for entry in carried.opset_import if entry.domain not in versions)
    return result


def names_of(head: bytes) -> set[str]:
    """The names that a head takes in its file."""
    if not head:
        return set()
    graph = ModelProto.FromString(head).graph
    return {tensor.name for tensor in graph.initializer} | {name for node in graph.node for name in node.output}


def _head_nodes(graph: GraphProto) -> list[NodeProto]:
    """The nodes from the first label operator on, and those before it that only choose a class for it."""
    made: set[str] = set()
    for node in graph.node:
        if node.op_type in LABELS or any(name in made for name in _reads(node)):
            made.update(node.output)
    outputs = {info.name for info in graph.output}
    for node in reversed(graph.node):
        readers = [other for other in graph.node if any(name in _reads(other) for name in node.output)]
        inside = all(set(reader.output) <= made for reader in readers) and not outputs & set(node.output)
        if node.op_type in _CHOOSING and readers and inside:
            made.update(node.output)
    return [node for node in graph.node if set(node.output) & made]


def _reads(node: NodeProto) -> Iterator[str]:
    """What a node reads, inner graphs included."""
    yield from node.input
    for entry in node.attribute:
        graphs: Iterable[GraphProto] = entry.graphs if entry.type == AttributeProto.GRAPHS else ()
        for graph in [entry.g] if entry.type == AttributeProto.GRAPH else graphs:
            for inner in graph.node:
                yield from _reads(inner)


def _port(graph: GraphProto, name: str) -> ValueInfoProto:
    """An output for what the head reads, of floats if the file does not say of what."""
    known = next((info for info in graph.value_info if info.name == name), None)
    return known or helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def _unused(name: str, taken: set[str]) -> str:
    count = 2
    while f"{name}.{count}" in taken:
        count += 1
    taken.add(f"{name}.{count}")
    return f"{name}.{count}"
