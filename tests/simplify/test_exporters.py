"""What exporters write around the weights: each spelling is simplified like the plain one, and computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from building import Array, model, node
from onnx import TensorProto, helper, numpy_helper

from redy.simplify import simplify
from redy.simplify.follow_shapes import reshaped

DEAD = [1, 4, 6]


def first_layer(rng: np.random.Generator, dead: list[int] = DEAD) -> Array:
    weights = rng.standard_normal((8, 3, 3, 3))
    weights[dead] = 0
    return weights


def plain(rng: np.random.Generator) -> onnx.ModelProto:
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Conv", "r v", "y")]
    return model(
        nodes, ["n", 3, 9, 9], {"y": ["n", 4, 5, 5]}, {"w": first_layer(rng), "v": rng.standard_normal((4, 8, 3, 3))}
    )


def channels(made: onnx.ModelProto) -> list[int]:
    weights = {t.name: t for t in made.graph.initializer}
    return [weights[n.input[1]].dims[0] for n in made.graph.node if n.op_type == "Conv"]


@pytest.mark.parametrize("domain", ["absent", "", "ai.onnx"])
def test_the_standard_domain_in_any_spelling(domain):
    made = plain(np.random.default_rng(0))
    del made.opset_import[:]
    entry = made.opset_import.add()
    entry.version = 17
    if domain != "absent":
        entry.domain = domain
    assert channels(simplify(made).model) == [5, 4]


@pytest.mark.parametrize("spelling", ["Mul", "Identity", "Transpose", "Reshape", "Cast"])
def test_nodes_that_compute_a_weight_are_evaluated(spelling):
    rng = np.random.default_rng(1)
    made = plain(rng)
    weights = first_layer(rng)
    stored = {t.name: t for t in made.graph.initializer}["w"]
    extra = []
    if spelling == "Mul":
        mask = np.ones((8, 1, 1, 1), dtype=np.float32)
        mask[DEAD] = 0
        source, extra = rng.standard_normal(weights.shape), [numpy_helper.from_array(mask, "mask")]
    elif spelling == "Transpose":
        source = weights.transpose(1, 0, 2, 3)
    elif spelling == "Reshape":
        source, extra = weights.reshape(8, -1), [numpy_helper.from_array(np.array([8, 3, 3, 3]), "shape")]
    else:
        source = weights
    array = np.asarray(source, dtype=np.float64 if spelling == "Cast" else np.float32)
    stored.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), "stored"))
    made.graph.initializer.extend(extra)
    attributes = {"Transpose": {"perm": [1, 0, 2, 3]}, "Cast": {"to": TensorProto.FLOAT}}.get(spelling, {})
    made.graph.node.insert(0, node(spelling, " ".join(["stored", *(t.name for t in extra)]), "w", **attributes))
    onnx.checker.check_model(made, full_check=True)
    result = simplify(made)
    assert channels(result.model) == [5, 4]
    assert result.report.deviation is not None
    assert not result.report.deviation.failed


def test_a_shared_tensor_is_cut_apart_and_stored_once_again():
    rng = np.random.default_rng(2)
    w, v = rng.standard_normal((8, 3, 1, 1)), rng.standard_normal((8, 8, 1, 1))
    w[DEAD], v[[0, 2]] = 0, 0
    bias = np.where(np.isin(np.arange(8), [0, 1, 2, 4, 6]), 0, rng.standard_normal(8))
    nodes = [
        node("Identity", "b", "b2"),
        node("Conv", "x w b", "c"),
        node("Relu", "c", "r"),
        node("Conv", "r v b2", "d"),
        node("Relu", "d", "s"),
        node("Conv", "s u", "y"),
    ]
    made = model(
        nodes, [1, 3, 6, 6], {"y": [1, 2, 6, 6]}, {"w": w, "v": v, "b": bias, "u": rng.standard_normal((2, 8, 1, 1))}
    )
    assert channels(simplify(made).model) == [5, 6, 2]
    twice = model(
        [
            node("Conv", "x w", "c"),
            node("Conv", "x w", "d"),
            node("Add", "c d", "e"),
            node("Relu", "e", "r"),
            node("Conv", "r u", "y"),
        ],
        [1, 3, 6, 6],
        {"y": [1, 2, 6, 6]},
        {"w": w, "u": rng.standard_normal((2, 8, 1, 1))},
    )
    result = simplify(twice).model
    assert channels(result) == [5, 5, 2]
    assert len(result.graph.initializer) == 2


def overridable(rng: np.random.Generator) -> onnx.ModelProto:
    made = plain(rng)
    made.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 3, 3, 3]))
    return made


def test_initializers_that_a_caller_may_override_are_kept_and_named():
    made = overridable(np.random.default_rng(3))
    result = simplify(made)
    assert result.model is made
    assert "w" in result.report.refused[0]
    assert "--fix-inputs" in result.report.refused[0]
    fixed = simplify(made, fix_inputs=True).model
    assert channels(fixed) == [5, 4]
    assert [value.name for value in fixed.graph.input] == ["x"]


def test_local_functions_are_inlined():
    rng = np.random.default_rng(4)
    made = plain(rng)
    body = [helper.make_node("Conv", ["a", "b"], ["c"]), helper.make_node("Relu", ["c"], ["d"])]
    opset = [helper.make_opsetid("", 17)]
    made.functions.append(helper.make_function("org.example", "ConvRelu", ["a", "b"], ["d"], body, opset))
    made.opset_import.append(helper.make_opsetid("org.example", 1))
    del made.graph.node[:2]
    made.graph.node.insert(0, helper.make_node("ConvRelu", ["x", "w"], ["r"], domain="org.example"))
    assert channels(simplify(made).model) == [5, 4]


@pytest.mark.parametrize("condition", [True, False])
def test_branches_of_a_stored_condition_are_taken(condition):
    rng = np.random.default_rng(5)
    made = plain(rng)
    branches = {}
    for name, op in (("then_branch", "Relu"), ("else_branch", "Neg")):
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, ["n", 8, 7, 7])
        branches[name] = helper.make_graph([helper.make_node(op, ["c"], [out.name])], name, [], [out])
    made.graph.node[1].CopyFrom(helper.make_node("If", ["which"], ["r"], **branches))
    made.graph.initializer.append(numpy_helper.from_array(np.array(condition), "which"))
    result = simplify(made).model
    assert [n.op_type for n in result.graph.node] == ["Conv", "Relu" if condition else "Neg", "Conv"]
    assert channels(result) == [5, 4]


@pytest.mark.parametrize(
    ("before", "asked", "after"),
    [
        (("n", 8, 4, 4), [0, -1], ["n", 128]),
        (("n", 8, 4, 4), ["n", -1], ["n", 128]),
        ((2, 8, 3), [-1, 3], [16, 3]),
        (("n", "h", 4), ["n", -1], ["n", None]),
        ((None, 8), [-1, 4], [None, 4]),
        (("n", 8), [4, -1], [4, None]),
    ],
)
def test_shapes_behind_a_reshape(before, asked, after):
    assert reshaped(before, asked) == after


def test_sizes_of_the_batch_are_no_wall():
    rng = np.random.default_rng(6)
    nodes = [
        node("Conv", "x w", "c"),
        node("Relu", "c", "r"),
        node("Shape", "r", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n zeros", "m"),
        node("Concat", "m minus", "to", axis=0),
        node("Reshape", "r to", "f"),
        node("Gemm", "f g", "y"),
    ]
    weights = {
        "w": first_layer(rng),
        "g": rng.standard_normal((8 * 49, 4)),
        "zero": np.array(0),
        "zeros": np.array([0]),
        "minus": np.array([-1]),
    }
    assert channels(simplify(model(nodes, ["n", 3, 9, 9], {"y": ["n", 4]}, weights)).model) == [5]


@pytest.mark.parametrize("end", [4, None])
def test_sizes_of_the_image_are_no_wall(end):
    rng = np.random.default_rng(7)
    nodes = [
        node("Conv", "x w", "c"),
        node("Relu", "c", "r"),
        node("Shape", "r", "s", start=2, **({} if end is None else {"end": end})),
        node("Sub", "s one", "e"),
        node("Slice", "r zero e axes", "l"),
        node("Conv", "l v", "y"),
    ]
    weights = {
        "w": first_layer(rng),
        "v": rng.standard_normal((4, 8, 1, 1)),
        "one": np.array([1, 1]),
        "zero": np.array([0, 0]),
        "axes": np.array([2, 3]),
    }
    made = model(nodes, ["n", 3, "h", "w"], {"y": ["n", 4, None, None]}, weights)
    assert channels(simplify(made).model) == [5, 4]


def test_the_number_of_channels_that_is_read_stays():
    rng = np.random.default_rng(8)
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Conv", "r v", "y"), node("Shape", "r", "s")]
    made = model(
        nodes, ["n", 3, 9, 9], {"y": ["n", 4, 7, 7]}, {"w": first_layer(rng), "v": rng.standard_normal((4, 8, 1, 1))}
    )
    made.graph.output.append(helper.make_tensor_value_info("s", TensorProto.INT64, [4]))
    assert channels(simplify(made).model) == [8, 4]


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("constant", [0.0, 0.7])
def test_input_channels_of_recurrent_layers(op, bias, constant):
    rng = np.random.default_rng(9)
    gates, hidden = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 5
    w = rng.standard_normal((8, 3, 1)) / 2
    w[DEAD] = 0
    shift = rng.standard_normal(8)
    shift[DEAD] = constant
    weights = {
        "w": w,
        "b": shift,
        "W": rng.standard_normal((1, gates * hidden, 8)) / 3,
        "R": rng.standard_normal((1, gates * hidden, hidden)) / 3,
        **({"B": rng.standard_normal((1, 2 * gates * hidden))} if bias else {}),
    }
    nodes = [
        node("Conv", "x w b", "c"),
        node("Relu", "c", "r"),
        node("Transpose", "r", "t", perm=[2, 0, 1]),
        node(op, "t W R" + (" B" if bias else ""), "y", hidden_size=hidden),
    ]
    made = model(nodes, ["n", 3, 6], {"y": [6, 1, "n", hidden]}, weights)
    result = simplify(made).model
    assert channels(result) == [5]
    stored = {t.name: t for t in result.graph.initializer}
    assert stored[next(n for n in result.graph.node if n.op_type == op).input[1]].dims[2] == 5


def test_a_guarantee_of_redy_does_not_survive_a_rewrite():
    made = plain(np.random.default_rng(10))
    for key in ("redy.guarantee", "author"):
        entry = made.metadata_props.add()
        entry.key, entry.value = key, "x"
    assert [entry.key for entry in simplify(made).model.metadata_props] == ["author"]


def test_a_batch_stored_as_minus_one_counts_as_dynamic():
    made = plain(np.random.default_rng(11))
    for value in (made.graph.input[0], made.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    report = simplify(made).report
    assert report.before.multiply_adds > 0
    assert 0 < report.after.multiply_adds < report.before.multiply_adds


def test_blocks_of_channels_are_filled_and_not_more():
    rng = np.random.default_rng(12)
    weights = rng.standard_normal((24, 3, 3, 3))
    weights[:13] = 0
    made = model(
        [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Conv", "r v", "y")],
        [1, 3, 9, 9],
        {"y": [1, 4, 7, 7]},
        {"w": weights, "v": rng.standard_normal((4, 24, 1, 1))},
    )
    from redy.simplify.choice import Choice
    from redy.simplify.pipeline import rewritten

    assert channels(rewritten(made, Choice("auto", block=8)).model) == [16, 4]
    assert channels(rewritten(made, Choice("auto")).model) == [11, 4]


def test_sizes_through_merged_batch_and_heads():
    """(n, h, t, d) -> (n h, t, d) -> transposed -> (n, h, d, t) with a dynamic n is one Transpose."""
    rng = np.random.default_rng(13)
    w = rng.standard_normal((6, 12))
    w[:, 4:8] = 0
    nodes = [
        node("MatMul", "x w", "a"),
        node("Reshape", "a apart", "b"),
        node("Transpose", "b", "c", perm=[0, 2, 1, 3]),
        node("Reshape", "c three", "d"),
        node("Transpose", "d", "e", perm=[0, 2, 1]),
        node("Shape", "c", "size", end=1),
        node("Concat", "size rest", "back", axis=0),
        node("Reshape", "e back", "f"),
        node("Transpose", "f", "g", perm=[0, 3, 1, 2]),
        node("Reshape", "g join", "h"),
        node("MatMul", "h v", "y"),
    ]
    weights = {
        "w": w,
        "v": rng.standard_normal((12, 3)),
        "apart": np.array([-1, 5, 3, 4]),
        "three": np.array([-1, 5, 4]),
        "rest": np.array([3, 4, 5]),
        "join": np.array([-1, 5, 12]),
    }
    made = model(nodes, ["n", 5, 6], {"y": ["n", 5, 3]}, weights)
    result = simplify(made)
    assert [n.op_type for n in result.model.graph.node].count("Reshape") == 2
    stored = {t.name: tuple(t.dims) for t in result.model.graph.initializer}
    assert [stored[n.input[1]] for n in result.model.graph.node if n.op_type == "MatMul"] == [(6, 8), (8, 3)]
    assert result.report.deviation is not None
    assert not result.report.deviation.failed


def test_a_number_of_channels_in_a_computed_shape_is_rewritten():
    """(n, 2 t, h d) -> (n, t', h d) with t' computed from the batch: the channels are a number."""
    rng = np.random.default_rng(14)
    w = rng.standard_normal((6, 8))
    w[:, DEAD] = 0
    nodes = [
        node("MatMul", "x w", "a"),
        node("Shape", "x", "s", end=2),
        node("Mul", "s twice", "m"),
        node("Concat", "m eight", "to", axis=0),
        node("Reshape", "a to", "b"),
        node("MatMul", "b v", "y"),
    ]
    weights = {"w": w, "v": rng.standard_normal((8, 3)), "twice": np.array([1, 1]), "eight": np.array([8])}
    made = model(nodes, ["n", "t", 6], {"y": [None, None, 3]}, weights)
    result = simplify(made)
    stored = {t.name: tuple(t.dims) for t in result.model.graph.initializer}
    assert [stored[n.input[1]] for n in result.model.graph.node if n.op_type == "MatMul"] == [(6, 5), (5, 3)]
    assert result.report.deviation is not None
    assert not result.report.deviation.failed


def recurrent(op: str, dead: list[int], *, directions: int = 1, read: bool = True) -> onnx.ModelProto:
    """A recurrent layer of 6 units; `dead` ones have no candidate, or nobody reads them."""
    rng = np.random.default_rng(15)
    gates, hidden = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 6
    w, r = (rng.standard_normal((directions, gates, hidden, n)) / 3 for n in (5, hidden))
    b = rng.standard_normal((directions, 2, gates, hidden))
    v = rng.standard_normal((directions * hidden, 3))
    candidate = {"LSTM": 3, "GRU": 2, "RNN": 0}[op]
    if read:
        w[:, candidate, dead], r[:, candidate, dead], b[:, :, candidate, dead] = 0, 0, 0
    else:
        r[..., dead] = 0
        v.reshape(directions, hidden, 3)[:, dead] = 0
    weights = {
        "W": w.reshape(directions, -1, 5),
        "R": r.reshape(directions, -1, hidden),
        "B": b.reshape(directions, -1),
        "v": v,
        "join": np.array([0, 0, directions * hidden]),
    }
    way = {"direction": "bidirectional"} if directions == 2 else {}
    nodes = [
        node(op, "x W R B", "h", hidden_size=hidden, **way),
        node("Transpose", "h", "t", perm=[0, 2, 1, 3]),
        node("Reshape", "t join", "f"),
        node("MatMul", "f v", "y"),
    ]
    return model(nodes, [4, "n", 5], {"y": [4, "n", 3]}, weights)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("read", [True, False])
def test_hidden_units_that_are_zero_or_unread(op, directions, read):
    made = recurrent(op, [1, 4], directions=directions, read=read)
    result = simplify(made)
    assert result.report.deviation is not None
    assert not result.report.deviation.failed
    stored = {t.name: tuple(t.dims) for t in result.model.graph.initializer}
    layer = result.model.graph.node[0]
    assert stored[layer.input[2]][2] == 4
    assert stored[layer.input[1]] == (directions, 4 * {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 5)
    assert stored[result.model.graph.node[-1].input[1]] == (4 * directions, 3)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_hidden_units_with_a_given_state_stay(op):
    made = recurrent(op, [1, 4])
    state = helper.make_tensor_value_info("h0", TensorProto.FLOAT, [1, "n", 6])
    made.graph.input.append(state)
    made.graph.node[0].input.extend(["", "h0"])
    result = simplify(made).model
    stored = {t.name: tuple(t.dims) for t in result.graph.initializer}
    assert stored[result.graph.node[0].input[2]][2] == 6


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("activations", [False, True])
def test_quantised_weights_stay_quantised(axis, zero, activations):
    rng = np.random.default_rng(16)
    made = plain(rng)
    q = rng.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8)
    shift = np.full((8,) if axis == 0 else (), 3 if zero else 0, dtype=np.int8)
    q[DEAD] = shift.ravel()[0]
    scale = (rng.uniform(0.01, 0.03, 8) if axis == 0 else np.array(0.02)).astype(np.float32)
    stored = {t.name: t for t in made.graph.initializer}["w"]
    stored.CopyFrom(numpy_helper.from_array(q, "q"))
    made.graph.initializer.append(numpy_helper.from_array(scale, "scale"))
    names = "q scale"
    if zero:
        made.graph.initializer.append(numpy_helper.from_array(shift, "zero"))
        names += " zero"
    made.graph.node.insert(0, node("DequantizeLinear", names, "w", **({} if axis is None else {"axis": axis})))
    if activations:
        made.graph.initializer.append(numpy_helper.from_array(np.array(0.05, dtype=np.float32), "step"))
        made.graph.initializer.append(numpy_helper.from_array(np.array(7, dtype=np.uint8), "middle"))
        made.graph.node[3].input[0] = "rd"
        made.graph.node.insert(3, node("DequantizeLinear", "rq step middle", "rd"))
        made.graph.node.insert(3, node("QuantizeLinear", "r step middle", "rq"))
    onnx.checker.check_model(made, full_check=True)
    result = simplify(made)
    assert result.report.deviation is not None
    assert not result.report.deviation.failed
    held = {t.name: numpy_helper.to_array(t) for t in result.model.graph.initializer}
    first = next(n for n in result.model.graph.node if n.op_type == "DequantizeLinear")
    live = np.delete(np.arange(8), DEAD)
    np.testing.assert_array_equal(held[first.input[0]], q[live])
    assert held[first.input[0]].dtype == np.int8
    np.testing.assert_array_equal(held[first.input[1]], scale[live] if axis == 0 else scale)
    assert len(result.model.graph.node) == len(made.graph.node)
