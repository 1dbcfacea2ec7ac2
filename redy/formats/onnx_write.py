"""Writing a `Network` as an ONNX model that runs in onnxruntime.

Every node of the network is the ONNX tensor of the same name; weights are rounded to the network's `weight_dtype`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import ModelProto, ValueInfoProto, helper

from redy.errors import InputError
from redy.formats.files import write_atomically
from redy.formats.reading.head import join_head, names_of
from redy.formats.writing.affine import write_affine, write_constant
from redy.formats.writing.builder import Builder
from redy.formats.writing.carried import needed_opset, write_elementwise, write_foreign, write_max_pool
from redy.formats.writing.functions import write_activation
from redy.model import (
    Activate,
    Affine,
    Dense,
    Elementwise,
    Foreign,
    Gather,
    MaxPool,
    Network,
    Node,
    Port,
    Product,
    Shape,
    Term,
)
from redy.version import __version__

_OLDEST_OPSET, _OLDEST_IR = 13, 8
LARGEST_ZEROS = 4096
"""A constant output is a Gemm with zero weights, which every tool reads, if these are not more than so many."""


def write_network(network: Network, path: str | os.PathLike[str], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write the network to `path` as ONNX, through a temporary file and a rename.

    Args:
        network: the network.
        path: where to.
        metadata: entries for the model's `metadata_props`.

    Raises:
        InputError: the file cannot be written, or a weight does not fit into the network's `weight_dtype`.
    """
    data = to_model(network, metadata).SerializeToString(deterministic=True)
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def to_model(network: Network, metadata: Mapping[str, str] | None = None, *, plain: bool = False) -> ModelProto:
    """The network as an ONNX model, checked by the ONNX checker.

    Args:
        network: the network.
        metadata: entries for the model's `metadata_props`.
        plain: every Gemm has a bias and spells out its attributes, which simple readers ask for.

    Raises:
        InputError: a weight does not fit into the network's `weight_dtype`.
    """
    names = {
        network.input.name,
        *(part.name for part in network.input.parts),
        *network.shapes,
        *(port.name for port in network.outputs),
        *names_of(network.head),
    }
    opset = max([network.opset, _OLDEST_OPSET, *(needed_opset(node) for node in network.nodes)])
    builder = Builder(np.dtype(network.weight_dtype), names, dict(network.shapes), network.input.name, opset, plain)
    _write_inputs(builder, network)
    outputs = _plan_outputs(builder, network)
    outer = {port.name for port in network.outputs}
    for node in network.nodes:
        # What only hands on an input of the file is that input.
        if node.name not in builder.tensors or node.name in outer:
            _write_node(builder, node, network)
    for port, inner in outputs:
        _write_output(builder, port, inner)
    _rename(builder, {port.name: inner for port, inner in outputs if inner != port.name})
    graph = helper.make_graph(
        builder.nodes,
        "redy",
        [_info(port) for port in network.input.parts or (network.input,)],
        [_info(port) for port in network.outputs],
        builder.initializers,
    )
    imports = _imports(builder, network)
    model = helper.make_model(graph, producer_name="redy", producer_version=__version__, opset_imports=imports)
    model.ir_version = max(_OLDEST_IR, helper.find_min_ir_version_for(imports, ignore_unknown=True))
    model = join_head(model, network.head)
    helper.set_model_props(model, {str(key): str(text) for key, text in (metadata or {}).items()})
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise InputError(f"the network cannot be written as ONNX ({' '.join(str(error).split())[:300]})") from error
    return model


def _imports(builder: Builder, network: Network) -> list[onnx.OperatorSetIdProto]:
    versions = {"": builder.opset}
    for node in network.nodes:
        if isinstance(node, Foreign):
            used = ModelProto.FromString(node.payload)
            versions |= {entry.domain: entry.version for entry in used.opset_import if entry.domain}
    return [helper.make_opsetid(domain, version) for domain, version in versions.items()]


def _info(port: Port) -> ValueInfoProto:
    shape = [*(() if port.batch is None else (port.batch,)), *port.shape]
    kind = (
        onnx.TensorProto.BFLOAT16 if port.dtype == "bfloat16" else helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
    )
    return helper.make_tensor_value_info(port.name, kind, shape)


def _write_inputs(builder: Builder, network: Network) -> None:
    """The input, or its parts; where nodes read more than whole parts, the parts flattened one after the other."""
    whole = network.input
    if not whole.parts:
        builder.tensors[whole.name] = _entered(builder, whole)
        return
    parts = {part.name: _entered(builder, part) for part in whole.parts}
    start, starts = 0, {}
    for part in whole.parts:
        starts[start, part.shape] = parts[part.name]
        start += math.prod(part.shape)
    for node in network.readers[whole.name]:
        if isinstance(node, Affine) and (found := _part_read(node, starts)) is not None:
            builder.tensors[node.name] = found
    if any(node.name not in builder.tensors for node in network.readers[whole.name]) or any(
        port.name == whole.name for port in network.outputs
    ):
        flats = [
            parts[part.name]
            if len(part.shape) == 1
            else builder.reshape(parts[part.name], (math.prod(part.shape),), builder.fresh(f"{part.name}.flat"))
            for part in whole.parts
        ]
        builder.tensors[whole.name] = builder.node("Concat", flats, builder.fresh(f"{whole.name}.joined"), axis=1)
    builder.batch_source = parts[whole.parts[0].name]


def _part_read(node: Affine, starts: Mapping[tuple[int, Shape], str]) -> str | None:
    """The tensor of the part that the node gives as it is."""
    if len(node.terms) != 1 or node.bias.any() or not isinstance(operator := node.terms[0].operator, Gather):
        return None
    index = operator.index.ravel()
    if not index.size or not np.array_equal(index, index[0] + np.arange(index.size)):
        return None
    return starts.get((int(index[0]), operator.index.shape))


def _entered(builder: Builder, port: Port) -> str:
    """Inside the graph an input has a batch axis and the type in which the network computes."""
    tensor = port.name
    if port.dtype != builder.dtype.name:
        kind = helper.np_dtype_to_tensor_dtype(builder.dtype)
        tensor = builder.node("Cast", [tensor], builder.fresh(f"{port.name}.cast"), to=kind)
    if port.batch is None:
        axis = builder.whole_numbers("batch_axis", [0])
        tensor = builder.node("Unsqueeze", [tensor, axis], builder.fresh(f"{port.name}.batched"))
    return tensor


def _plan_outputs(builder: Builder, network: Network) -> list[tuple[Port, str]]:
    """Each output with the name its value has inside the graph, another one where a cast or Squeeze follows."""
    plan = []
    for port in network.outputs:
        node = network.by_name.get(port.name)
        kept = isinstance(node, Foreign) and np.dtype(port.dtype).kind != "f" if port.dtype != "bfloat16" else False
        same = port.batch is not None and (kept or port.dtype == builder.dtype.name)
        plan.append((port, port.name if same else builder.fresh(f"{port.name}.inner")))
    return plan


def _write_output(builder: Builder, port: Port, inner: str) -> None:
    if inner == port.name:
        return
    tensor = inner
    cast = port.dtype != builder.dtype.name
    if port.batch is None:
        axis = builder.whole_numbers("batch_axis", [0])
        tensor = builder.node(
            "Squeeze", [tensor, axis], builder.fresh(f"{port.name}.sample") if cast else f"{port.name}\0"
        )
    if cast:
        builder.node("Cast", [tensor], f"{port.name}\0", to=_info(port).type.tensor_type.elem_type)


def _rename(builder: Builder, inner: Mapping[str, str]) -> None:
    """Values that are cast or squeezed for the output give their name to the result."""
    final = {f"{name}\0": name for name in inner}
    for node in builder.nodes:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = inner.get(name, final.get(name, name))
        if node.name in final:
            node.name = final[node.name]
        elif node.name in inner:
            node.name = inner[node.name]


def _write_node(builder: Builder, node: Node, network: Network) -> None:
    match node:
        case Affine() if not node.terms:
            size = math.prod(network.input.shape)
            small = size * node.bias.size <= LARGEST_ZEROS or builder.plain
            if small and len(node.shape) == 1 and node.name in {port.name for port in network.outputs}:
                nothing = Term(
                    network.input.name, Dense(np.zeros((node.bias.size, size)), network.input.shape, node.shape)
                )
                write_affine(builder, Affine(node.name, (nothing,), node.bias))
                return
            batch = network.input.batch
            write_constant(builder, node, 1 if batch is None else batch if isinstance(batch, int) else None)
        case Affine():
            write_affine(builder, node)
        case Activate():
            write_activation(builder, node)
        case Elementwise():
            write_elementwise(builder, node)
        case MaxPool():
            write_max_pool(builder, node)
        case Product():
            builder.node("Mul", [builder.tensor(node.left), builder.tensor(node.right)], node.name)
        case Foreign():
            write_foreign(builder, node, network)
