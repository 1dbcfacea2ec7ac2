"""ONNX nodes that are carried as they are and evaluated by the reference implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from redy.errors import InputError
from redy.formats.reading.graph import Graph, Op, Tensor, Value, label
from redy.formats.reading.order import captured, nested
from redy.formats.reading.reference import WRONG
from redy.model import Array, Foreign

_REFERENCE_SINCE = 13


def carry(graph: Graph, op: Op, dtype: str) -> list[Tensor]:
    """Every output of the node as a `Foreign` value; `dtype` is the type in which the file computes.

    Raises:
        InputError: the node cannot be evaluated, or it mixes the samples of a batch.
    """
    outer = sorted(captured(op.node) - set(op.node.input))
    names = [str(name) for name in op.node.input if name] + outer
    tensors = {str(name): tensor for name, tensor in zip(op.node.input, op.inputs, strict=True) if name}
    tensors |= {name: graph.tensors[name] for name in outer if name in graph.tensors}
    values = {name: tensor for name in dict.fromkeys(names) if isinstance(tensor := tensors.get(name), Value)}
    rng = np.random.default_rng(0)
    kinds = {name: graph.kinds.get(value.name, dtype) for name, value in values.items()}
    probe = {name: rng.random(graph.full_shape(value)).astype(kinds[name]) for name, value in values.items()}
    constants = {
        name: tensor.astype(np.float32) if str(tensor.dtype) == "bfloat16" else tensor
        for name, tensor in tensors.items()
        if isinstance(tensor, np.ndarray)
    }
    open_inputs = [_info(name, array, graph.batch, value.batched) for (name, value), array in
                   zip(values.items(), probe.values(), strict=True)]  # fmt: skip
    named = [str(name) for name in op.node.output if name]
    untyped = [helper.make_empty_tensor_value_info(name) for name in named]
    run = _evaluator(op, _payload(op.node, open_inputs, untyped, constants, graph.opsets))
    outputs = run(probe)
    _check_shapes(graph, op, named, outputs, values.values())
    _check_samples_apart(graph, op, run, probe, outputs)
    typed = [
        _info(name, found, graph.batch, _batched(graph, found, values.values()))
        for name, found in zip(named, outputs, strict=True)
    ]
    payload = _payload(*_anonymous(op.node, open_inputs, typed, constants), graph.opsets)
    results: list[Tensor] = []
    for place, (name, found) in enumerate(zip(named, outputs, strict=True)):
        batched = _batched(graph, found, values.values())
        shape = found.shape[1:] if batched else found.shape
        function = _function(run, list(values.items()), place, kinds, one_by_one=graph.batch == 1, batched=batched)
        operator = f"{op.node.domain}::{op.kind}" if op.node.domain else op.kind
        node = Foreign(
            graph.claim(name), tuple(v.name for v in values.values()), shape, operator, payload, function, place
        )
        results.append(graph.add(node, batched=batched))
        if found.dtype.kind != "f":
            graph.kinds[node.name] = str(found.dtype)
    found_names = iter(results)
    return [next(found_names) if name else None for name in op.node.output]


def _batched(graph: Graph, found: np.ndarray, values: Iterable[Value]) -> bool:
    return found.ndim > 0 and found.shape[0] == graph.batch and any(value.batched for value in values)


def _check_shapes(graph: Graph, op: Op, named: list[str], outputs: list[np.ndarray], values: Iterable[Value]) -> None:
    """Refuses outputs that are not numbers, or lack the batch axis that the network's input has.

    Raises:
        InputError: one of them is so.
    """
    for name, found in zip(named, outputs, strict=True):
        if found.dtype.kind not in "fiub" and str(found.dtype) != "bfloat16":
            raise InputError(
                f"{label(op.node)}: its output {name!r} holds {found.dtype.name}, not numbers; remove the "
                "labels from the network's outputs (skl2onnx: options={'zipmap': False, 'output_class_labels': False})"
            )
        if graph.batch > 1 and not _batched(graph, found, values):
            raise InputError(
                f"{label(op.node)}: its output {name!r} has no batch axis, but the network's input has one; export it "
                "with a fixed batch of 1, or give a shape with --shape"
            )


def _check_samples_apart(
    graph: Graph,
    op: Op,
    run: Callable[[dict[str, np.ndarray]], list[np.ndarray]],
    probe: dict[str, np.ndarray],
    outputs: list[np.ndarray],
) -> None:
    """Refuses a node whose first sample changes when the other samples of the batch do.

    Raises:
        InputError: it does, or the file is read at a batch size at which this cannot be seen.
    """
    refusal = InputError(
        f"{label(op.node)}: its output {op.output!r} mixes the samples of a batch; export the network with a "
        "fixed batch of 1, or give a shape with --shape"
    )
    if graph.open_batch:
        raise refusal
    if graph.batch == 1:
        return
    other = {name: np.concatenate([array[:1], array[1:] * 2 + 1]).astype(array.dtype) for name, array in probe.items()}
    for first, second in zip(outputs, run(other), strict=True):
        if first.shape != second.shape or not np.allclose(
            np.asarray(first[0], dtype=np.float64), np.asarray(second[0], dtype=np.float64), equal_nan=True
        ):
            raise refusal


def _anonymous(
    node: NodeProto, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto], constants: Mapping[str, np.ndarray]
) -> tuple[NodeProto, list[ValueInfoProto], list[ValueInfoProto], Mapping[str, np.ndarray]]:
    """The same with names that say nothing, so that nodes of two files that compute the same are equal.

    A node with inner graphs keeps its names, for these read some of them.
    """
    if captured(node):
        return node, inputs, outputs, constants
    kinds = (("in", [i.name for i in inputs]), ("out", [o.name for o in outputs]), ("constant", list(constants)))
    names = {name: f"{kind}{place}" for kind, some in kinds for place, name in enumerate(some)}
    plain = NodeProto()
    plain.CopyFrom(node)
    plain.name = ""
    plain.input[:] = [names.get(name, name) for name in node.input]
    plain.output[:] = [names.get(name, name) for name in node.output]
    ports: list[list[ValueInfoProto]] = [[], []]
    for some, copies in zip((inputs, outputs), ports, strict=True):
        for info in some:
            copy = ValueInfoProto()
            copy.CopyFrom(info)
            copy.name = names[info.name]
            copies.append(copy)
    return plain, ports[0], ports[1], {names[name]: array for name, array in constants.items()}


def _payload(
    node: NodeProto,
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto],
    constants: Mapping[str, np.ndarray],
    opsets: Mapping[str, int],
) -> bytes:
    """The node as a model of its own: its values are the inputs, its constants the initializers."""
    weights = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()]
    body = helper.make_graph([node], "node", inputs, outputs, weights)
    used = {"", *(inner.domain for inner in nested(node))}
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items() if domain in used]
    model = helper.make_model(body, opset_imports=imports)
    model.ir_version = max(8, helper.find_min_ir_version_for(imports, ignore_unknown=True))
    return bytes(model.SerializeToString(deterministic=True))


def _info(name: str, array: np.ndarray, batch: int, batched: bool) -> ValueInfoProto:
    """Type and shape of a tensor seen at the batch size of reading."""
    shape = ["batch" if batch > 1 else 1, *array.shape[1:]] if batched else list(array.shape)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)


def _evaluator(op: Op, payload: bytes) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    """Runs the node in the reference implementation, or in onnxruntime where that lacks it."""
    cached: list[Callable[[dict[str, np.ndarray]], list[object]]] = []

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        try:
            if not cached:
                cached.append(_first_that_runs(payload, inputs))
            with np.errstate(all="ignore"):
                found = cached[0](inputs)
        except Exception as error:  # Both implementations raise many kinds of errors.
            text = " ".join(str(error).split())[:200]
            raise InputError(f"{label(op.node)}: cannot be evaluated ({text})") from error
        if not all(isinstance(array, np.ndarray | np.generic) for array in found):
            raise InputError(f"{label(op.node)}: gives a value that is not a tensor")
        return [np.asarray(array) for array in found]

    return run


def _first_that_runs(payload: bytes, inputs: dict[str, np.ndarray]) -> Callable[[dict[str, np.ndarray]], list[object]]:
    """The reference implementation comes first, but not for what it computes wrongly.

    That is some nodes, and everything before opset 13, where it has the newer meaning of some operators.
    """
    model = ModelProto.FromString(payload)
    old = any(entry.version < _REFERENCE_SINCE for entry in model.opset_import if not entry.domain)
    old = old or any(node.op_type in WRONG for node in model.graph.node)
    failure: Exception | None = None
    for make in (_in_onnxruntime, _in_reference) if old else (_in_reference, _in_onnxruntime):
        try:
            run = make(model)
            with np.errstate(all="ignore"):
                run(inputs)
        except Exception as error:  # noqa: BLE001 - whatever one implementation lacks, the other may have.
            failure = error if failure is None or make is _in_reference else failure
        else:
            return run
    raise failure if failure is not None else InputError("no implementation")


def _in_reference(model: ModelProto) -> Callable[[dict[str, np.ndarray]], list[object]]:
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - it loads slowly, and few models need it

    reference = ReferenceEvaluator(model)
    return lambda arrays: list(reference.run(None, arrays))


def _in_onnxruntime(model: ModelProto) -> Callable[[dict[str, np.ndarray]], list[object]]:
    import onnxruntime  # noqa: PLC0415 - it loads slowly, and few models need it

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda arrays: list(session.run(None, arrays))


def _function(
    run: Callable[[dict[str, np.ndarray]], list[np.ndarray]],
    values: list[tuple[str, Value]],
    place: int,
    kinds: Mapping[str, str],
    *,
    one_by_one: bool,
    batched: bool,
) -> Callable[..., Array]:
    """Evaluates the node on (n, ...) values: all at once where the file allows it, else sample by sample."""

    def evaluate(*arrays: Array) -> Array:
        cast = [np.asarray(array).astype(kinds[name]) for (name, _), array in zip(values, arrays, strict=True)]
        if not one_by_one:
            return run({name: array for (name, _), array in zip(values, cast, strict=True)})[place].astype(np.float64)
        rows = []
        for sample in range(len(cast[0])):
            inputs = {
                name: array[sample : sample + 1] if value.batched else np.asarray(array[sample])
                for (name, value), array in zip(values, cast, strict=True)
            }
            found = run(inputs)[place]
            rows.append(found[0] if batched else found)
        return np.stack(rows).astype(np.float64)

    return evaluate
