"""Reading an ONNX file into a `Network`.

Names: every node of the network is named after the ONNX tensor that it computes; nodes without a tensor of their own
(the parts of one ONNX node) get a made-up name that no tensor of the file has. So the `name` of an `Activate` node is
the name of the tensor that the activation writes in the file, and findings can be carried back to the graph by it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, inliner, numpy_helper

from redy.errors import InputError
from redy.formats.files import read_bytes
from redy.formats.reading import activations, arithmetic, casts, dense, learned, movement, spatial
from redy.formats.reading.casts import FLOATS
from redy.formats.reading.foreign import carry
from redy.formats.reading.graph import READERS, SYMBOLIC_BATCH, Graph, Op, Refused, Tensor, Value, label
from redy.formats.reading.head import has_head, split_head
from redy.formats.reading.inputs import WHOLE, Shapes, enter_inputs, input_port
from redy.formats.reading.movement import MOVEMENTS
from redy.formats.reading.order import live_nodes
from redy.formats.reading.reference import run_node
from redy.model import Affine, Dense, Network, Node, Port
from redy.model.compose import activations_first, elide_identities, inline, redirected
from redy.model.digest import network_digest
from redy.model.operators import identity

OTHER_BATCH = 5
"""Another batch size, at which the same network must be read."""

FAMILIES = (activations, arithmetic, casts, dense, learned, movement, spatial)
"""The modules that register readers when they are imported."""


def read_network(source: str | os.PathLike[str] | ModelProto, shapes: Shapes | None = None) -> Network:
    """The network that an ONNX file (or a loaded model) describes, in float64.

    Several inputs become one: flattened, one after the other (`Port.parts`).

    Args:
        source: the file, also one compressed by gzip, or the model.
        shapes: shapes of inputs, batch axis included, where the file leaves more than the batch open.

    Raises:
        InputError: the file is not a readable ONNX model with inputs of numbers whose shapes are known except for the
            batch, or a weight is NaN or infinite; the text names the file and the place.
    """
    where = "the model" if isinstance(source, ModelProto) else str(source)
    folder = "" if isinstance(source, ModelProto) else str(Path(source).parent)
    model = source if isinstance(source, ModelProto) else _load(Path(source))
    try:
        return _read(model, folder, shapes or {})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except Refused as error:
        raise InputError(f"{where}: {error}") from error


def _load(path: Path) -> ModelProto:
    data = read_bytes(path, "give the path of an ONNX model")
    if not data:
        raise InputError(f"{path}: the file is empty; expected an ONNX model")
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # Protobuf's errors are not part of onnx's interface.
        raise InputError(f"{path}: not an ONNX model, or cut short") from error
    if not model.HasField("graph") or not model.graph.output:
        raise InputError(f"{path}: not an ONNX model, or cut short (it has no graph with an output)")
    return model


def _read(model: ModelProto, folder: str, shapes: Shapes) -> Network:
    if model.functions:
        model = inliner.inline_local_functions(model)
    head = b""
    if has_head(model):
        model, head = split_head(model)
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    inputs = [info for info in model.graph.input if info.name not in initializers]
    if not model.graph.output:
        raise InputError("the network has no output")
    names = {name for node in model.graph.node for name in (*node.input, *node.output)} | set(initializers)
    port, batches = input_port(inputs, shapes, names | {info.name for info in inputs})
    constants: dict[str, Tensor] = {name: _constant(tensor, folder) for name, tensor in initializers.items()}
    constants |= {t.values.name: _dense_of_sparse(t) for t in model.graph.sparse_initializer}
    first: Exception | None = None
    for batch in batches:
        try:
            network = _at_batch(model, port, constants, batch)
            if batch == SYMBOLIC_BATCH:
                _check_other_batch(model, port, constants, network)
        except (Refused, InputError) as error:
            first = first or error
        else:
            return replace(network, head=head) if head else network
    raise first if first is not None else InputError("the network cannot be read")


def _check_other_batch(model: ModelProto, port: Port, constants: Mapping[str, Tensor], network: Network) -> None:
    """Refuses a file in which a number, and not only a shape, depends on the batch size.

    Raises:
        InputError: read at another batch size, the file describes another network.
    """
    try:
        other = _at_batch(model, port, constants, OTHER_BATCH)
    except (Refused, InputError) as error:
        raise InputError(f"{error} (at another batch size)") from error
    if network_digest(other) != network_digest(network):
        raise InputError(
            "what it computes for one sample depends on the batch size; export the network with a fixed batch of 1, or "
            "give a shape with --shape"
        )


def _constant(tensor: TensorProto, folder: str) -> np.ndarray:
    try:
        return np.asarray(numpy_helper.to_array(tensor, folder))
    except Exception as error:
        raise InputError(f"weight {tensor.name!r} cannot be read ({error})") from error


def _dense_of_sparse(tensor: onnx.SparseTensorProto) -> np.ndarray:
    values, places = numpy_helper.to_array(tensor.values), numpy_helper.to_array(tensor.indices)
    result = np.zeros(tuple(tensor.dims), dtype=values.dtype)
    if places.ndim == 1:
        result.ravel()[places] = values
    else:
        result[tuple(places.T)] = values
    return result


def _at_batch(model: ModelProto, port: Port, constants: Mapping[str, Tensor], batch: int) -> Network:
    opsets = {entry.domain if entry.domain != "ai.onnx" else "": entry.version for entry in model.opset_import}
    opsets.setdefault("", 1)
    graph = Graph(batch, opsets, open_batch=batch == 1 and port.batch not in {1, None})
    graph.tensors.update(constants)
    graph.reserved = {port.name, *(part.name for part in port.parts), *constants}
    graph.reserved |= {str(name) for node in model.graph.node for name in node.output}
    enter_inputs(graph, port)
    weight_dtype = _weight_dtype(port, constants)
    for node in live_nodes(model.graph):
        found = _read_node(graph, node, weight_dtype)
        for name, tensor in zip(node.output, found, strict=False):
            if name:
                graph.tensors[str(name)] = tensor
                graph.types.setdefault(str(name), _type_after(graph, node))
    outputs = [_output(graph, info, port) for info in model.graph.output]
    return _finish(graph, port, tuple(outputs), weight_dtype)


def _weight_dtype(port: Port, constants: Mapping[str, Tensor]) -> str:
    """The widest of the weights' types; bfloat16, which numpy lacks, counts as float32."""
    kinds = {str(tensor.dtype) for tensor in constants.values() if isinstance(tensor, np.ndarray) and tensor.ndim}
    found = next((kind for kind in ("float64", "float32", "float16") if kind in kinds), port.dtype)
    return "float32" if found == "bfloat16" or "bfloat16" in kinds else found


def _read_node(graph: Graph, node: NodeProto, dtype: str) -> list[Tensor]:
    inputs = [graph.tensors[name] if name else None for name in node.input]
    op = Op(node, inputs, graph.opsets.get("", 1))
    graph.own = {str(name) for name in node.output if name}
    if node.op_type == "Constant" or (not any(isinstance(t, Value) for t in inputs) and not _has_subgraph(node)):
        return _constants(graph, node, inputs)
    if node.op_type in {"Shape", "Size"}:
        return _shape_of(graph, node, inputs[0])
    if changing := next((name for name in node.input if name in graph.shadows), None):
        raise InputError(
            f"{label(node)}: {changing!r} depends on the batch size; export the network with a fixed batch of 1, or "
            "give a shape with --shape"
        )
    _whole_inputs(graph, node, inputs)
    reader = READERS.get(node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}::{node.op_type}")
    before = len(graph.nodes)
    if reader is not None and not any(isinstance(t, Value) and t.name in graph.kinds for t in inputs):
        try:
            return reader(graph, op)
        except (Refused, ValueError, IndexError, TypeError):
            del graph.nodes[before:]
            graph.own = {str(name) for name in node.output if name}
    return carry(graph, op, "float32" if dtype == "float16" else dtype)


def _constants(graph: Graph, node: NodeProto, inputs: list[Tensor]) -> list[Tensor]:
    """The outputs of a node that reads constants alone."""
    found = list(run_node(node, inputs, graph.opsets))
    if any(name in graph.shadows for name in node.input):
        elsewhere = [graph.shadows.get(str(name), tensor) for name, tensor in zip(node.input, inputs, strict=True)]
        _keep_shadows(graph, node, found, run_node(node, elsewhere, graph.opsets))
    return list(found)


def _shape_of(graph: Graph, node: NodeProto, tensor: Tensor) -> list[Tensor]:
    """Shape or Size of a tensor; where the batch is open and read at 1, what depends on it is kept in mind."""
    shape = graph.full_shape(tensor)
    found = run_node(node, [np.empty(shape, dtype=np.int8)], graph.opsets)
    if graph.open_batch and isinstance(tensor, Value) and tensor.batched:
        others = run_node(node, [np.empty((OTHER_BATCH, *shape[1:]), dtype=np.int8)], graph.opsets)
        _keep_shadows(graph, node, found, others)
    return list(found)


def _keep_shadows(graph: Graph, node: NodeProto, found: list[np.ndarray], others: list[np.ndarray]) -> None:
    for name, one, other in zip(node.output, found, others, strict=True):
        if name and not np.array_equal(one, other):
            graph.shadows[str(name)] = other


def _type_after(graph: Graph, node: NodeProto) -> str:
    """The element type of what a node computes with floating-point numbers."""
    if node.op_type == "Cast":
        to = next((entry.i for entry in node.attribute if entry.name == "to"), 0)
        return FLOATS.get(to, "float32")
    if node.domain == "ai.onnx.ml":
        return "float32"
    like = node.input[1] if node.op_type in {"CastLike", "Where"} and len(node.input) > 1 else None
    for name in [like] if like else node.input:
        if name in graph.types:
            return graph.types[name]
        if isinstance(tensor := graph.tensors.get(str(name)), np.ndarray) and str(tensor.dtype) in FLOATS.values():
            return str(tensor.dtype)
    return "float32"


def _whole_inputs(graph: Graph, node: NodeProto, inputs: list[Tensor]) -> None:
    """Refuses arithmetic on whole numbers of the input, which wraps around and divides otherwise than that of floats.

    Raises:
        InputError: the node computes with them.
    """
    for name, tensor in zip(node.input, inputs, strict=True):
        kind = graph.types.get(str(name), "")
        if kind in WHOLE and isinstance(tensor, Value) and tensor.name not in graph.kinds:
            if node.domain == "ai.onnx.ml" or node.op_type in {"Cast", "CastLike", "DequantizeLinear", *MOVEMENTS}:
                continue
            raise InputError(
                f"{label(node)}: computes with the {kind} input itself; cast the input to float first, or "
                "export it as float"
            )


def _has_subgraph(node: NodeProto) -> bool:
    return any(entry.type in {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS} for entry in node.attribute)


def _output(graph: Graph, info: ValueInfoProto, port: Port) -> Port:
    """The output port; the node it names gets the output's name."""
    if info.name not in graph.tensors:
        raise InputError(f"output {info.name!r} is computed by no node")
    tensor = graph.tensors[info.name]
    graph.own = {str(info.name)}
    if isinstance(tensor, np.ndarray):
        batched = port.batch is not None and tensor.ndim > 0 and tensor.shape[0] == graph.batch
        sample = graph.sample(tensor, tensor.shape, batched=batched)
        floating = np.asarray(sample).astype(np.float64)
        tensor = graph.affine(info.name, [], floating, batched=batched)
    if not isinstance(tensor, Value):
        raise InputError(f"output {info.name!r} is not a tensor")
    if tensor.name != info.name:
        tensor = graph.affine(info.name, [(tensor, identity(tensor.shape))], None, batched=tensor.batched)
    if port.batch is None and tensor.batched:
        tensor = _with_batch_axis(graph, tensor, str(info.name))
    kind = info.type.tensor_type
    dtype = FLOATS.get(kind.elem_type)
    if dtype is None:
        dtype = str(helper.tensor_dtype_to_np_dtype(kind.elem_type)) if kind.elem_type else port.dtype
    batch: int | str | None = None
    if tensor.batched:
        dims = kind.shape.dim
        named = dims[0].dim_param if dims and dims[0].HasField("dim_param") else ""
        batch = 1 if port.batch in {1, None} else named or port.batch
    return Port(info.name, tensor.shape, dtype, batch)


def _with_batch_axis(graph: Graph, value: Value, name: str) -> Value:
    """An output whose first axis was taken for a batch of 1, in a network whose input has no batch axis."""
    place = next(i for i, node in enumerate(graph.nodes) if node.name == value.name)
    graph.own = set()
    inner = graph.claim(f"{name}.sample")
    graph.nodes[place] = replace(graph.nodes[place], name=inner)
    graph.nodes[place + 1 :] = [redirected(node, {name: inner}) for node in graph.nodes[place + 1 :]]
    graph.own = {name}
    sample = Value(inner, value.shape, batched=True)
    return graph.reshaped(sample, (1, *value.shape), batched=False, name=name)


def _finish(graph: Graph, port: Port, outputs: tuple[Port, ...], dtype: str) -> Network:
    """Dead nodes dropped, chains of affine arithmetic joined where that is exact."""
    keep = {output.name for output in outputs}
    nodes = _live([_constant_if_zero(node) for node in graph.nodes], keep)
    for _ in range(2):
        nodes = elide_identities(inline(nodes, keep), keep)
    nodes = activations_first(nodes)
    return Network(port, nodes, outputs, opset=graph.opsets[""], weight_dtype=dtype)


def _constant_if_zero(node: Node) -> Node:
    """A matrix of zeros, which is how constant outputs are written, reads nothing."""
    if not isinstance(node, Affine) or not node.terms:
        return node
    if any(not isinstance(term.operator, Dense) or term.operator.weight.any() for term in node.terms):
        return node
    return Affine(node.name, (), node.bias)


def _live(nodes: list[Node] | tuple[Node, ...], keep: set[str]) -> tuple[Node, ...]:
    needed, kept = set(keep), []
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.sources)
            kept.append(node)
    return tuple(reversed(kept))


__all__ = ["read_network"]
