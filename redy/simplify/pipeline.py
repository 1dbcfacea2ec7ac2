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
from redy.simplify.check import Deviation, compare, latency_ratio
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
from redy.simplify.residual import expand_residuals
from redy.simplify.select_channels import Selector, settle_selectors, try_selectors
from redy.simplify.split_gates import split_gates
from redy.simplify.steps import Steps
from redy.simplify.straighten import ChannelFinding, straighten

MAX_ROUNDS = 6
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
RESIDUAL = ("auto", "union", "expand")


Optimize = Literal["latency", "macs", "parameters"]
SLOWEST = 1.02
"""A result that takes more than this share of the original's time is not given back where latency counts."""


_TOO_SMALL_TO_TIME = 1_000_000
"""Multiply-adds below which onnxruntime's overhead for a call and a node is most of the time."""


@dataclass(frozen=True)
class Choice:
    """Which rewrites a run may use.

    Attributes:
        residual: as in `simplify`.
        fix_inputs: as in `simplify`.
        maps: whether constants may become maps added behind a layer.
        gates: whether gates may be split and selectors inserted.
        block: layers keep a multiple of this number of channels.
    """

    residual: str
    fix_inputs: bool = False
    maps: bool = True
    gates: bool = True
    block: int = 1

    def plainer(self) -> list[Choice]:
        """Choices with less and less of what may cost time."""
        filled = dataclasses.replace(self, block=BLOCK)
        few = dataclasses.replace(filled, maps=False, gates=False)
        return [filled, few, dataclasses.replace(few, residual="union")]

    @property
    def what(self) -> str:
        """What was left out, in words."""
        left = [name for name, kept in (("border maps", self.maps), ("gates", self.gates)) if not kept]
        left += ["reordered residual sums"] if self.residual == "union" else []
        filled = f"channels were kept up to multiples of {self.block}" if self.block > 1 else "all rewrites were used"
        return f"{filled}, without {', '.join(left)}" if left else filled


BLOCK = 8
"""Channels that onnxruntime's convolutions compute at once."""


@dataclass(frozen=True)
class LayerChange:
    """One layer (convolution or matrix product): output channels before and after; 0 after means that it is gone."""

    name: str
    op: str
    before: int
    after: int
    constants: int = 0


@dataclass(frozen=True)
class Report:
    """What `simplify` did, as numbers."""

    layers: list[LayerChange]
    before: Cost
    after: Cost
    constants_propagated: int
    rewrites: dict[str, int]
    deviation: Deviation | None = None
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    latency: float | None = None


@dataclass(frozen=True)
class Simplified:
    """The simplified model and its report; `model` is the very model that came in where nothing could be done."""

    model: onnx.ModelProto
    report: Report


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
    result = _checked(model, findings or {}, limit, choice, seed if check and not findings else None)
    if optimize != "latency" or result.model is model:
        return result
    return _quickest(model, result, choice, seed, check=check)


def _checked(
    model: onnx.ModelProto,
    findings: Mapping[str, ChannelFinding],
    limit: int | None,
    choice: Choice,
    seed: int | None,
) -> Simplified:
    """The rewritten model, compared with the original on inputs of this seed (None: not compared)."""
    try:
        simplified, steps = _rewrite(model, findings, limit, choice)
    except (AssertionError, ValueError, IndexError, KeyError, TypeError, NotImplementedError) as error:
        return _untouched(model, error)
    if seed is None or simplified.model is model:
        return simplified
    deviation = compare(model, simplified.model, seed)
    if deviation.failed:
        culprit = _bisect(model, choice, steps, seed)
        raise CheckFailed(f"{deviation.text}; the rewrite that did it: {culprit}; nothing was written")
    return Simplified(simplified.model, dataclasses.replace(simplified.report, deviation=deviation))


def _quickest(model: onnx.ModelProto, result: Simplified, choice: Choice, seed: int, *, check: bool) -> Simplified:
    """The first of ever plainer results that is not slower than the original; the original where all are slower."""
    tried = [result]
    for plainer in (None, *choice.plainer()):
        if plainer is not None:
            result = _checked(model, {}, None, plainer, seed if check else None)
            tried.append(result)
        if result.model is model:
            break
        ratio = latency_ratio(model, result.model, seed)
        if ratio is None or ratio <= SLOWEST:
            note = [] if plainer is None else [f"{plainer.what} because the result was slower otherwise"]
            report = dataclasses.replace(result.report, latency=ratio, notes=[*result.report.notes, *note])
            return Simplified(result.model, report)
    for candidate in tried:
        # No node more, or a model of microseconds: the timer sees the runtime's own overhead, and the user is told.
        small = candidate.report.before.multiply_adds < _TOO_SMALL_TO_TIME
        if candidate.model is not model and (small or len(candidate.model.graph.node) <= len(model.graph.node)):
            ratio = latency_ratio(model, candidate.model, seed)
            slower = "could not be timed" if ratio is None else f"took {ratio:.2f} times the original's time"
            text = f"the result has fewer channels, but {slower} in onnxruntime; --optimize macs does not time it"
            report = dataclasses.replace(candidate.report, latency=ratio, notes=[*candidate.report.notes, text])
            return Simplified(candidate.model, report)
    return _left_alone(
        model, f"every smaller form was slower in onnxruntime than the original ({len(tried)} were timed)"
    )


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
    except (AssertionError, ValueError, IndexError, KeyError, TypeError, InputError):
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
    before = Cost(stored, count(graph).multiply_adds)  # only now are all shapes known that can be
    prepared, most = len(steps.applied), max(stored, parameters(graph))
    tracked = _layers(graph)
    graph.widths = {node: width for node, (_, _, width) in tracked.items()}
    constants: dict[str, int] = {}
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
            progress = _round(graph, findings, steps, constants)
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
    layers = [_change(name, op, n, node, constants) for node, (name, op, n) in tracked.items()]
    if not changed:
        return Simplified(model, Report(layers, before, before, 0, {}, refused=refused)), steps
    graph.remove_unread()
    share(graph)
    graph.remove_unread_initializers(unread)
    after = count(graph)
    report = Report(layers, before, after, sum(constants.values()), steps.counts(), refused=refused)
    if after.parameters > most and choice.maps:
        return _rewrite(model, findings, limit, dataclasses.replace(choice, maps=False))
    graph.forget_inferred_shapes()
    proto = _to_proto(graph, model)
    grown = [f"parameters would grow from {before.parameters} to {after.parameters}"] * (after.parameters > most)
    grown += ["the stored weights would take more bytes"] * (_weight_bytes(proto) > _weight_bytes(model))
    if grown and not findings:
        refused += grown
        untouched = [LayerChange(c.name, c.op, c.before, c.before) for c in layers]
        return Simplified(model, Report(untouched, before, before, 0, {}, refused=refused)), steps
    return Simplified(proto, report), steps


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


def _round(graph: Graph, findings: Mapping[str, ChannelFinding], steps: Steps, constants: dict[str, int]) -> int:
    facts = _facts(graph, findings)
    folded = fold_constants(graph, Analysis(graph, _flow_of, facts), steps.allow)
    if folded:
        graph.remove_unread()
    a = Analysis(graph, _flow_of, facts, steps.allow)
    dropped = drop_channels(graph, a)
    for name, number in dropped.where.items():
        constants[name] = constants.get(name, 0) + number
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


def _bisect(model: onnx.ModelProto, choice: Choice, steps: Steps, seed: int) -> str:
    """The first rewrite with which the result is wrong: right with `low` of them, wrong with `high`."""

    def wrong(limit: int) -> bool:
        candidate, _ = _rewrite(model, {}, limit, choice)
        return candidate.model is not model and compare(model, candidate.model, seed).failed

    return steps.name_of(first_wrong(wrong, len(steps.asked)))


def first_wrong(wrong: Callable[[int], bool], total: int) -> int:
    """Smallest number of rewrites with which the result is wrong, given that it is with all `total`."""
    low, high = 0, total
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wrong(middle) else (middle, high)
    return high
