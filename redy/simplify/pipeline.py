"""`simplify`: the rewrites in their order, the self-check behind them, and what was done."""

from __future__ import annotations

import dataclasses
import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir

from redy.errors import CheckFailed, InputError
from redy.simplify.analysis import Analysis
from redy.simplify.axes import UNIFORM
from redy.simplify.check import compare, valid
from redy.simplify.choice import Choice, quickest
from redy.simplify.cost import Cost, count, parameters
from redy.simplify.drop_channels import drop_channels
from redy.simplify.facts import Facts
from redy.simplify.flow import Flow
from redy.simplify.flows import flow_of
from redy.simplify.fold_constants import fold_constants
from redy.simplify.fold_shapes import fold_shapes, fuse_shuffles
from redy.simplify.fuse_batchnorm import fuse_batchnorm
from redy.simplify.graph import Graph, dims
from redy.simplify.merge_padding import merge_padding
from redy.simplify.merge_reshapes import merge_reshapes
from redy.simplify.prepare import inlined, overridable, prepare, share
from redy.simplify.quantised import requantise
from redy.simplify.reasons import scattered, stayed
from redy.simplify.report import LayerChange, Left, Report, Simplified
from redy.simplify.residual import expand_residuals
from redy.simplify.select_channels import Selector, settle_selectors, try_selectors
from redy.simplify.split_gates import split_gates
from redy.simplify.steps import Steps
from redy.simplify.straighten import ChannelFinding, straighten

MAX_ROUNDS = 6
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
RESIDUAL = ("auto", "union", "expand")


Optimize = Literal["latency", "macs", "parameters"]


def simplify(
    model: onnx.ModelProto,
    *,
    residual: str = "auto",
    findings: Mapping[str, ChannelFinding] | None = None,
    check: bool = True,
    seed: int = 0,
    limit: int | None = None,
    fix_inputs: bool = False,
    optimize: Optimize = "macs",
) -> Simplified:
    """Remove from a model what is algebraically constant or unused, exactly; operators not known are left alone.

    Args:
        model: any valid ONNX model; it is not changed.
        residual: what to do where constant channels are added to live ones: `union` keeps them, `expand` computes only
            the live ones and puts them in place by a Gather, `auto` takes what is cheaper.
        findings: per name of a tensor, channels proved constant or activations proved linear elsewhere (over a box).
            With findings the model is equal on that box only, so the self-check has to be the caller's.
        check: compare with the original in onnxruntime.
        seed: of the self-check's random inputs.
        limit: apply only the first so many rewrites.
        fix_inputs: initializers that are also inputs become constants, which no caller can override any more.
        optimize: "latency": both models are timed in onnxruntime, and where the result is slower the rewrites that cost
            time are left out; "macs" and "parameters" take every rewrite that saves multiply-adds or parameters.

    Raises:
        InputError: `residual` is none of the three, or the model cannot be read.
        CheckFailed: the result differs from the original beyond rounding; the text names the rewrite that did it.
    """
    if residual not in RESIDUAL:
        raise InputError(f"residual is {residual!r}; choose one of {', '.join(RESIDUAL)}")
    if model.graph.sparse_initializer or model.training_info:
        return _left_alone(model, "it has sparse initializers or training information, which are not followed")
    choice = Choice(residual, fix_inputs=fix_inputs, gates=optimize != "parameters")
    checked = seed if check and not findings else None

    def rewrite(wanted: Choice) -> Simplified:
        return rewritten(model, wanted, findings or {}, limit)

    def accept(made: Simplified, used: Choice) -> Simplified:
        return made if checked is None or made.model is model else _accepted(model, made, used, checked)

    if optimize != "latency":
        return accept(rewrite(choice), choice)
    found = quickest(model, rewrite, accept, choice, seed)
    return found or _left_alone(model, "every smaller form was slower in onnxruntime than the original")


@dataclass
class Totals:
    """Constants that moved into their readers, by layer, and maps that were added."""

    constants: dict[str, int] = field(default_factory=dict)
    maps: int = 0


def rewritten(
    model: onnx.ModelProto,
    choice: Choice,
    findings: Mapping[str, ChannelFinding] | None = None,
    limit: int | None = None,
) -> Simplified:
    """One form of the model, not compared with it."""
    try:
        return _rewrite(model, findings or {}, limit, choice)[0]
    except InputError as error:
        if not valid(model):
            raise
        return _left_alone(model, str(error))
    except (AssertionError, ValueError, IndexError, KeyError, TypeError, NotImplementedError) as error:
        return _untouched(model, error)


def _accepted(model: onnx.ModelProto, made: Simplified, choice: Choice, seed: int) -> Simplified:
    """The result, compared with the original on inputs of this seed."""
    deviation = compare(model, made.model, seed)
    if deviation.failed:
        culprit = _bisect(model, choice, seed)
        raise CheckFailed(f"{deviation.text}; caused by the rewrite {culprit}; nothing was written")
    return Simplified(made.model, dataclasses.replace(made.report, deviation=deviation))


def _untouched(model: onnx.ModelProto, error: Exception) -> Simplified:
    """A mistake in a rewrite costs its gain, never the user's model; the report says what went wrong and where."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    return _left_alone(model, f"internal error, please report it: {type(error).__name__} at {where}")


def _left_alone(model: onnx.ModelProto, reason: str) -> Simplified:
    try:
        graph = Graph(ir.from_proto(model))
        layers = [LayerChange(name, op, n, n) for name, op, n in _layers(graph).values()]
        cost = count(graph)
    except Exception:  # noqa: BLE001 - nothing is known of a model that cannot be represented
        layers, cost = [], Cost(0, 0)
    return Simplified(model, Report(layers, cost, cost, 0, {}, refused=[reason]))


def _rewrite(
    model: onnx.ModelProto,
    findings: Mapping[str, ChannelFinding],
    limit: int | None,
    choice: Choice,
) -> tuple[Simplified, Steps]:
    steps = Steps(limit)
    try:
        graph = Graph(inlined(ir.from_proto(model), fix_inputs=choice.fix_inputs), maps=choice.maps, block=choice.block)
    except Exception as error:  # whatever the reader cannot represent is left alone
        raise InputError(f"the model cannot be read ({error})") from error
    refused = _overridable(graph)
    unread = {name for name, v in graph.graph.initializers.items() if not v.uses() and not v.is_graph_output()}
    stored = parameters(graph)
    prepare(graph, steps.allow)
    merge_reshapes(graph, steps.allow)
    before = dataclasses.replace(count(graph), parameters=stored)  # only now are all shapes known that can be
    most = max(stored, parameters(graph))
    tracked = _layers(graph)
    graph.widths = {node: width for node, (_, _, width) in tracked.items()}
    changed, totals = _passes(graph, findings, steps, choice)
    graph.remove_unread()
    layers = [_change(name, op, n, node, totals.constants) for node, (name, op, n) in tracked.items()]
    names = {node: name for node, (name, _, _) in tracked.items()}
    left = Left(stayed(Analysis(graph, _flow_of, _facts(graph, findings)), names), scattered(graph, names))
    if not changed:
        return Simplified(model, Report(layers, before, before, 0, {}, refused=refused, left=left)), steps
    requantise(graph)
    share(graph)
    graph.remove_unread_initializers(unread)
    after = count(graph)
    rewrites = steps.counts() | ({"border_maps": totals.maps} if totals.maps else {})
    report = Report(layers, before, after, sum(totals.constants.values()), rewrites, refused=refused, left=left)
    if after.parameters > most and choice.maps:
        return _rewrite(model, findings, limit, dataclasses.replace(choice, maps=False))
    graph.forget_inferred_shapes()
    proto = _to_proto(graph, model)
    grown = [f"parameters would grow from {before.parameters} to {after.parameters}"] * (after.parameters > most)
    grown += ["the stored weights would take more bytes"] * (_weight_bytes(proto) > _weight_bytes(model))
    if grown and not findings:
        refused += grown
        untouched = [LayerChange(c.name, c.op, c.before, c.before) for c in layers]
        return Simplified(model, Report(untouched, before, before, 0, {}, refused=refused, left=left)), steps
    return Simplified(proto, report), steps


def _passes(graph: Graph, findings: Mapping[str, ChannelFinding], steps: Steps, choice: Choice) -> tuple[bool, Totals]:
    """All rewrites in their order; whether anything changed."""
    totals, prepared = Totals(), len(steps.applied)
    straighten(graph, findings, steps.allow)
    fold_shapes(graph)
    fuse_batchnorm(graph, steps.allow)
    fuse_shuffles(graph)
    merge_padding(graph, steps.allow)
    changed = len(steps.applied) > prepared

    def analyse() -> Analysis:
        return Analysis(graph, _flow_of, _facts(graph, findings))

    def rounds() -> bool:
        for number in range(MAX_ROUNDS):
            progress = _round(graph, findings, steps, totals)
            if not progress + fuse_batchnorm(graph, steps.allow):
                return number > 0
        return True

    changed |= rounds()
    if choice.gates and split_gates(graph, analyse(), steps.allow):
        changed = True
        rounds()
    if choice.gates and try_selectors(graph, analyse, steps.allow):
        changed = True
        rounds()
    settle_selectors(graph)
    if choice.residual != "union":
        changed |= expand_residuals(graph, choice.residual, steps.allow) > 0
    return changed, totals


def _weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of stored numbers, in initializers and in nodes, without the integers that are sizes and indices."""
    held = [a.t for node in model.graph.node for a in node.attribute if a.type == onnx.AttributeProto.TENSOR]
    tensors = [t for t in [*model.graph.initializer, *held] if t.data_type != onnx.TensorProto.INT64]
    sizes = [ir.DataType(t.data_type).itemsize * math.prod(t.dims) for t in tensors]
    return int(sum(sizes))


def _overridable(graph: Graph) -> list[str]:
    """What is said about initializers that a caller may override."""
    names = overridable(graph)
    if not names:
        return []
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return [
        (
            f"{len(names)} initializers are also inputs ({shown}), so a caller may override them and their values were "
            "not used; --fix-inputs makes them constants"
        )
    ]


def _to_proto(graph: Graph, original: onnx.ModelProto) -> onnx.ModelProto:
    """The rewritten model, its inputs and outputs declared just as they were."""
    proto = ir.to_proto(graph.model)
    declared = {value.name: value for value in original.graph.input}
    for value in proto.graph.input:
        if value.name in declared:
            value.CopyFrom(declared[value.name])
    del proto.graph.output[:]
    proto.graph.output.extend(original.graph.output)
    # A guarantee is about the file that it was written into.
    kept = [entry for entry in proto.metadata_props if not entry.key.startswith("redy.")]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    return proto


def _round(graph: Graph, findings: Mapping[str, ChannelFinding], steps: Steps, totals: Totals) -> int:
    facts = _facts(graph, findings)
    folded = fold_constants(graph, Analysis(graph, _flow_of, facts), steps.allow)
    if folded:
        graph.remove_unread()
    a = Analysis(graph, _flow_of, facts, steps.allow)
    dropped = drop_channels(graph, a)
    totals.maps += dropped.maps
    for name, number in dropped.where.items():
        totals.constants[name] = totals.constants.get(name, 0) + number
    graph.remove_unread()
    return folded + dropped.channels


def _flow_of(node: ir.Node, graph: Graph) -> Flow:
    return Selector() if node in graph.selectors else flow_of(node, graph)


def _facts(graph: Graph, findings: Mapping[str, ChannelFinding]) -> dict[str, Facts]:
    facts = {}
    for node in graph.nodes():
        for value in node.outputs:
            finding = findings.get(value.name or "")
            shape = dims(value)
            if finding is None or shape is None:
                continue
            axis = finding.axis % len(shape)
            if shape[axis] != len(finding.constant):
                continue  # an earlier round took channels: what it could use is used
            view = [len(finding.constant) if i == axis else 1 for i in range(len(shape))]
            table = np.asarray(finding.constant, dtype=np.float64).reshape(view)
            facts[value.name or ""] = Facts.of(np.isfinite(table), table, [UNIFORM] * len(shape))
    return facts


def _layers(graph: Graph) -> dict[ir.Node, tuple[str, str, int]]:
    layers = {}
    for node in graph.nodes():
        if node.op_type in _LAYERS and graph.is_constant(node.inputs[1]):
            layers[node] = (node.name or node.outputs[0].name or "", node.op_type, _channels(node))
    return layers


def _channels(node: ir.Node) -> int:
    shape = dims(node.outputs[0])
    if not shape:
        return 0
    channels = shape[1] if node.op_type in ("Conv", "ConvTranspose") and len(shape) > 1 else shape[-1]
    return channels if isinstance(channels, int) else 0


def _change(name: str, op: str, before: int, node: ir.Node, constants: Mapping[str, int]) -> LayerChange:
    after = _channels(node) if node.graph is not None else 0
    return LayerChange(name, op, before, after, constants.get(name, 0))


def _bisect(model: onnx.ModelProto, choice: Choice, seed: int) -> str:
    """The first rewrite with which the result is wrong: right with `low` of them, wrong with `high`."""

    def wrong(limit: int) -> bool:
        candidate, _ = _rewrite(model, {}, limit, choice)
        return candidate.model is not model and compare(model, candidate.model, seed).failed

    _, steps = _rewrite(model, {}, None, choice)
    return steps.name_of(first_wrong(wrong, len(steps.asked)))


def first_wrong(wrong: Callable[[int], bool], total: int) -> int:
    """Smallest number of rewrites with which the result is wrong, given that it is with all `total`."""
    low, high = 0, total
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wrong(middle) else (middle, high)
    return high
