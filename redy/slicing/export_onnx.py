"""A slice, or the whole family, as one ONNX model.

The model of a family picks the slice itself: it counts the faces at or below the point (grid) or goes down the tree,
gathers the living bits of the slice's mask and its lines, and clears the units that do not live (the shared form).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, compose, helper, version_converter

from redy.errors import InputError
from redy.model import Network
from redy.slicing.cuts import GridCut, TreeCut
from redy.slicing.export_lines import PickedLines, lined, picked_lines, straight
from redy.slicing.graph import OPSET, Graph
from redy.slicing.masks import by_activation, unpack
from redy.slicing.program import Program
from redy.version import __version__

if TYPE_CHECKING:
    from redy.slicing.family import Family, Form


def flat_model(program: Program) -> ModelProto:
    """A program over points `x` (n, inputs), with outputs `y` (n, outputs)."""
    graph, element = Graph(), helper.np_dtype_to_tensor_dtype(program.dtype)
    last = _emit(graph, program, "x", {})
    graph.add("Identity", [last], "y")
    inputs = [helper.make_tensor_value_info("x", element, ["n", program.inputs])]
    outputs = [helper.make_tensor_value_info("y", element, ["n", program.steps[-1].bias.size])]
    return graph.model(inputs, outputs, {})


def slice_model(family: Family, index: int, form: Form | None = None) -> ModelProto:
    """One slice with the original's input and output names, shapes and type."""
    graph, network, program = Graph(), family.network, family.program(index, form)
    last = _emit(graph, program, _flattened(graph, network), {})
    box = family.cut.cell(index)
    return _finished(graph, network, last, {"redy.slice": str(index), "redy.box.digest": box.digest})


def family_model(family: Family, *, flat: bool = False) -> ModelProto:
    """The whole family; with `flat` over points `x` (n, inputs) instead of the original's input."""
    graph, network, program = Graph(), family.network, family.whole
    x = "x" if flat else _flattened(graph, network)
    chosen = _picked(graph, family, x)
    last = _emit(graph, program, x, _gates(graph, family, chosen), picked_lines(graph, family))
    if family.winner is not None:
        last = _decided(graph, family, chosen, last)
    if not flat:
        made = _finished(
            graph,
            network,
            last,
            {
                "redy.slices": str(len(family)),
                "redy.box.digest": family.cut.box.digest,
                "redy.guarantee": family.guarantee,
            },
        )
        return made if family.front is None else _behind(onnx.load_model_from_string(family.front.model), made)
    element = helper.np_dtype_to_tensor_dtype(program.dtype)
    graph.add("Identity", [last], "y")
    inputs = [helper.make_tensor_value_info("x", element, ["n", program.inputs])]
    return graph.model(inputs, [helper.make_tensor_value_info("y", element, ["n", program.steps[-1].bias.size])], {})


def _behind(front: ModelProto, tail: ModelProto) -> ModelProto:
    """One model of the part before the sliced layer, as it was, and the family of what follows.

    Raises:
        InputError: the front's operators have no form in the opset that the family needs.
    """
    versions = {entry.domain: entry.version for entry in front.opset_import}
    try:
        if versions.get("", OPSET) < OPSET:
            front = version_converter.convert_version(front, OPSET)
        for model in (front, tail):
            model.ir_version = max(front.ir_version, tail.ir_version)
        for entry in tail.opset_import:
            entry.version = max(versions.get("", OPSET), OPSET)
        joint = (front.graph.output[0].name, tail.graph.input[0].name)
        merged = compose.merge_models(front, tail, io_map=[joint], producer_name="redy", producer_version=__version__)
        helper.set_model_props(merged, {entry.key: entry.value for entry in tail.metadata_props})
        onnx.checker.check_model(merged, full_check=True)
    except (ValueError, RuntimeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        text = " ".join(str(error).split())[:160]
        raise InputError(f"the part before the sliced layer cannot be joined to the family ({text})") from error
    return merged


def session(model: ModelProto) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """An onnxruntime session on one thread."""
    import onnxruntime  # noqa: PLC0415 - takes a while to load

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _flattened(graph: Graph, network: Network) -> str:
    size = int(np.prod(network.input.shape))
    return graph.add("Reshape", [network.input.name, graph.constant("redy_flat", [-1, size])], "redy_x")


def _finished(graph: Graph, network: Network, last: str, metadata: dict[str, str]) -> ModelProto:
    port, out = network.input, network.outputs[0]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(network.weight_dtype))

    def axes(batch: int | str | None, shape: tuple[int, ...]) -> list[int | str]:
        # A fixed batch of 1 becomes open: a family is there for many points.
        return list(shape) if batch is None else [batch if isinstance(batch, str) else "batch", *shape]

    shape = [*([] if out.batch is None else [-1]), *out.shape]
    graph.add("Reshape", [last, graph.constant("redy_shape", shape)], out.name)
    inputs = [helper.make_tensor_value_info(port.name, element, axes(port.batch, port.shape))]
    outputs = [helper.make_tensor_value_info(out.name, element, axes(out.batch, out.shape))]
    return graph.model(inputs, outputs, metadata)


def _emit(
    graph: Graph, program: Program, x: str, gates: dict[int, str], lines: Mapping[int, PickedLines] | None = None
) -> str:
    """The steps of a program; the last value's name.

    Where `gates` has one for a step, units outside it become 0; where `lines` has some, those units become lines.
    """
    values, dtype = [x], program.dtype
    for number, step in enumerate(program.steps, start=1):
        name = f"redy_{number}"
        bias = graph.constant(f"{name}_bias", step.bias, dtype)
        last = ""
        terms = [(s, w) for s, w in zip(step.sources, step.weights, strict=True) if w.size]
        if not terms:
            terms = [(0, np.zeros((step.bias.size, program.inputs), dtype=dtype))]
        for k, (source, weight) in enumerate(terms):
            matrix = graph.constant(f"{name}_weight{k}", weight, dtype)
            add = [bias] if not last else [last]
            last = graph.add("Gemm", [values[source], matrix, *add], f"{name}_z{k}", transB=1)
        z = last
        if step.relu:
            last = graph.add("Relu", [z], f"{name}_y")
        if step.straight is not None:
            last = straight(graph, step, name, z, last)
        if number in gates:
            zero = graph.constant("redy_nothing", 0, dtype)
            last = graph.add("Where", [gates[number], last, zero], f"{name}_gated")
        if lines and number in lines:
            last = lined(graph, lines[number], name, z, last)
        values.append(last)
    return values[-1]


def round_up(face: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The smallest numbers of the type at or above the faces: for x of the type, x >= face is x >= round_up(face)."""
    near = face.astype(dtype)
    return np.where(near.astype(np.float64) < face, np.nextafter(near, dtype.type(np.inf)), near)


def _picked(graph: Graph, family: Family, x: str) -> str:
    """The number of each point's slice, (n,)."""
    cut, dtype = family.cut, family.whole.dtype
    if isinstance(cut, GridCut):
        total = ""
        for axis, faces in enumerate(cut.faces):
            stride = int(np.prod(cut.grid.splits[axis + 1 :], dtype=np.int64))
            name = f"redy_axis{axis}"
            place = graph.constant(f"{name}_place", [axis])
            column = graph.add("Gather", [x, place], f"{name}_x", axis=1)
            face = graph.constant(f"{name}_faces", np.append(round_up(faces, dtype), np.inf), dtype)
            above = graph.add("GreaterOrEqual", [column, face], f"{name}_above")
            count = graph.add("Cast", [above], f"{name}_int", to=TensorProto.INT64)
            count = graph.add("ReduceSum", [count, graph.constant("redy_one", [1])], f"{name}_count", keepdims=0)
            part = graph.add("Mul", [count, graph.constant(f"{name}_stride", stride)], f"{name}_part")
            total = part if not total else graph.add("Add", [total, part], f"{name}_sum")
        return total
    assert isinstance(cut, TreeCut)
    return _descended(graph, cut, x, dtype)


def _descended(graph: Graph, cut: TreeCut, x: str, dtype: np.dtype[Any]) -> str:
    inner, leaves = len(cut.axis), len(cut)
    # A leaf is a node that sends every point to itself.
    children = np.where(cut.children < 0, inner + ~cut.children, cut.children).reshape(inner, 2)
    selves = np.arange(inner, inner + leaves)
    axis = graph.constant("redy_tree_axis", np.append(cut.axis, np.zeros(leaves, dtype=np.int64)))
    face = np.append(round_up(cut.face, dtype), np.full(leaves, np.inf, dtype=dtype))
    faces = graph.constant("redy_tree_face", face, dtype)
    below = graph.constant("redy_tree_below", np.append(children[:, 0], selves))
    above = graph.constant("redy_tree_above", np.append(children[:, 1], selves))
    first = graph.add("Gather", [x, graph.constant("redy_zero", [0])], "redy_tree_first", axis=1)
    shape = graph.add("Shape", [first], "redy_tree_shape")
    node = graph.add(
        "ConstantOfShape", [shape], "redy_tree_0", value=helper.make_tensor("zero", TensorProto.INT64, [1], [0])
    )
    for level in range(cut.depth):
        name = f"redy_tree_{level + 1}"
        at = graph.add("Gather", [axis, node], f"{name}_axis")
        value = graph.add("GatherElements", [x, at], f"{name}_x", axis=1)
        limit = graph.add("Gather", [faces, node], f"{name}_face")
        right = graph.add("GreaterOrEqual", [value, limit], f"{name}_right")
        low = graph.add("Gather", [below, node], f"{name}_below")
        high = graph.add("Gather", [above, node], f"{name}_above")
        node = graph.add("Where", [right, high, low], name)
    leaf = graph.add("Sub", [node, graph.constant("redy_tree_inner", inner)], "redy_tree_leaf")
    return graph.add("Reshape", [leaf, graph.constant("redy_all", [-1])], "redy_tree_slice")


def _decided(graph: Graph, family: Family, chosen: str, last: str) -> str:
    """The outputs `last`, or constants in slices with one winner."""
    assert family.winner is not None
    best = graph.add("Gather", [graph.constant("redy_winner", family.winner), chosen], "redy_best")
    column = graph.add("Unsqueeze", [best, graph.constant("redy_column_axis", [1])], "redy_best_column")
    decided = graph.add("GreaterOrEqual", [column, graph.constant("redy_none", 0)], "redy_is_decided")
    known = graph.add(
        "Gather", [graph.constant("redy_constants", family.constants, family.whole.dtype), best], "redy_known"
    )
    return graph.add("Where", [decided, known, last], "redy_decided")


def _gates(graph: Graph, family: Family, chosen: str) -> dict[int, str]:
    """Per ReLU step of the whole program which units live, (n, units of the step)."""
    network = family.network
    if not network.units:
        return {}
    alive = unpack(family.masks, network.units) != 0
    bits = graph.constant("redy_bits", np.packbits(alive, axis=1, bitorder="little"), np.uint8)
    # The bits are unpacked from constants alone, which a runtime does once, when it loads the model.
    wide = graph.add("Cast", [bits], "redy_wide", to=TensorProto.INT32)
    byte = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    single = graph.add("Gather", [graph.constant("redy_bytes", byte, np.bool_), wide], "redy_single", axis=0)
    width = 8 * -(-network.units // 8)
    rows = graph.add("Reshape", [single, graph.constant("redy_width", [-1, width])], "redy_rows")
    mask = graph.add("Gather", [graph.constant("redy_slice_mask", family.slice_mask, np.int32), chosen], "redy_mask")
    flat = graph.add("Gather", [rows, mask], "redy_living", axis=0)
    gates, first = {}, 0
    steps = [number for number, step in enumerate(family.whole.steps, start=1) if step.relu]
    for number, (_, mine) in zip(steps, by_activation(network, alive[0].astype(np.uint8)), strict=True):
        ends = [graph.constant(f"redy_{n}_{number}", [v]) for n, v in (("from", first), ("to", first + mine.size))]
        gates[number] = graph.add("Slice", [flat, *ends, graph.constant("redy_one", [1])], f"redy_gate_{number}")
        first += mine.size
    return gates
