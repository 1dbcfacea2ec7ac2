"""Channels leave producers and readers together, through every operator that moves them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from simplify.building import filters, model, node, ops, shapes, simplified

from redy.simplify import simplify

RNG = np.random.default_rng(5)


def between(
    middle: list[onnx.NodeProto],
    extra: dict[str, np.ndarray],
    readers: int,
    *,
    dead: tuple[int, ...] = (0, 3, 4),
    opset: int = 17,
) -> onnx.ModelProto:
    """Conv 3 -> 8 (some filters dead), `middle` from `a` to `b`, Conv from `readers` channels to 4."""
    weights = {
        "w1": filters(RNG, (8, 3, 3, 3), dead), "b1": RNG.normal(size=8), "w2": RNG.normal(size=(4, readers, 1, 1)),
        **extra,
    }  # fmt: skip
    nodes = [node("Conv", "x w1 b1", "a"), *middle, node("Conv", "b w2", "y")]
    return model(nodes, ("n", 3, 8, 8), {"y": ("n", 4, None, None)}, weights, opset=opset)


def test_channels_nobody_reads() -> None:
    made = between([node("Relu", "a", "b")], {}, 8, dead=())
    weight = onnx.numpy_helper.to_array(made.graph.initializer[2]).copy()
    weight[:, [1, 2, 6]] = 0
    made.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(weight, "w2"))
    assert shapes(simplified(made, (2, 3, 8, 8)).model, "Conv") == [(5, 3, 3, 3), (4, 5, 1, 1)]


@pytest.mark.parametrize("opset", [11, 17])
def test_split_and_concat(opset: int) -> None:
    parts, extra = ({"split": [3, 5]}, {}) if opset < 13 else ({}, {"sizes": np.array([3, 5])})
    split = node("Split", "a" if opset < 13 else "a sizes", "p q", axis=1, **parts)
    made = between([split, node("Concat", "q p", "b", axis=1)], extra, 8, opset=opset)
    assert shapes(simplified(made, (1, 3, 8, 8)).model, "Conv")[1] == (4, 5, 1, 1)


def test_channel_shuffle() -> None:
    extra = {"wide": np.array([0, 2, 4, 6, 6]), "flat": np.array([0, 8, 6, 6])}
    middle = [
        node("Reshape", "a wide", "p"),
        node("Transpose", "p", "q", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "q flat", "b"),
    ]
    assert shapes(simplified(between(middle, extra, 8), (2, 3, 8, 8)).model, "Conv")[1] == (4, 5, 1, 1)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_pixel_shuffle_drops_whole_blocks(mode: str) -> None:
    dead = (0, 2, 4, 6) if mode == "DCR" else (0, 1, 2, 3)
    made = between(
        [node("Identity", "a", "i"), node("DepthToSpace", "i", "b", blocksize=2, mode=mode)], {}, 2, dead=dead
    )
    bias = onnx.numpy_helper.to_array(made.graph.initializer[1]).copy()
    bias[list(dead)] = 0.5
    made.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(bias, "b1"))
    assert shapes(simplified(made, (1, 3, 8, 8)).model, "Conv") == [(4, 3, 3, 3), (4, 1, 1, 1)]


def test_depthwise_goes_with_its_producer() -> None:
    extra = {"d": RNG.normal(size=(8, 1, 3, 3))}
    result = simplified(between([node("Conv", "a d", "b", group=8)], extra, 8), (1, 3, 8, 8))
    assert shapes(result.model, "Conv") == [(5, 3, 3, 3), (5, 1, 3, 3), (4, 5, 1, 1)]


def test_groups_keep_as_many_channels_each() -> None:
    extra = {"g": filters(RNG, (8, 4, 3, 3), (1, 2, 6))}
    result = simplified(between([node("Conv", "a g", "b", group=2)], extra, 8, dead=(0, 4)), (1, 3, 8, 8))
    assert shapes(result.model, "Conv")[:2] == [(6, 3, 3, 3), (6, 3, 3, 3)]


def test_whole_groups_go() -> None:
    extra = {"g": filters(RNG, (8, 4, 3, 3), (0, 1, 2, 3))}
    result = simplified(between([node("Conv", "a g", "b", group=2)], extra, 8, dead=()), (1, 3, 8, 8))
    assert shapes(result.model, "Conv")[:2] == [(4, 3, 3, 3), (4, 4, 3, 3)]
    assert next(a.i for a in result.model.graph.node[1].attribute if a.name == "group") == 1


@pytest.mark.parametrize(
    ("op", "attributes"),
    [("Softmax", {"axis": 1}), ("LRN", {"size": 3}), ("LogSoftmax", {"axis": 1})],
)
def test_normalisation_over_channels_is_a_wall(op: str, attributes: dict) -> None:
    made = between([node(op, "a", "b", **attributes)], {}, 8)
    assert simplified(made, (1, 3, 8, 8)).model is made


def test_gate_and_gated_go_together() -> None:
    extra = {"g1": RNG.normal(size=(2, 8, 1, 1)), "g2": RNG.normal(size=(8, 2, 1, 1))}
    middle = [
        node("Relu", "a", "r"), node("GlobalAveragePool", "r", "p"), node("Conv", "p g1", "q"),
        node("Conv", "q g2", "s"),
        node("Sigmoid", "s", "t"), node("Mul", "r t", "b"),
    ]  # fmt: skip
    made = between(middle, extra, 8)
    made.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.zeros(8, np.float32), "b1"))
    assert shapes(simplified(made, (1, 3, 8, 8)).model, "Conv") == [
        (5, 3, 3, 3),
        (2, 5, 1, 1),
        (5, 2, 1, 1),
        (4, 5, 1, 1),
    ]


def test_residual_keeps_the_union() -> None:
    extra = {"g": filters(RNG, (8, 8, 1, 1), (0, 1, 2))}
    result = simplified(
        between([node("Conv", "a g", "c"), node("Add", "a c", "b")], extra, 8, dead=(0, 2, 5)), (1, 3, 8, 8)
    )
    assert shapes(result.model, "Conv") == [(6, 3, 3, 3), (6, 6, 1, 1), (4, 6, 1, 1)]


def test_output_in_the_middle_keeps_its_channels() -> None:
    made = between([node("Relu", "a", "b")], {}, 8)
    made.graph.output.append(helper.make_tensor_value_info("a", 1, ("n", 8, 6, 6)))
    result = simplified(made, (2, 3, 8, 8))
    assert shapes(result.model, "Conv") == [(8, 3, 3, 3), (4, 5, 1, 1)]


def test_everything_pruned() -> None:
    result = simplified(between([node("Sigmoid", "a", "b")], {}, 8, dead=tuple(range(8))), (1, 3, 8, 8), (5, 3, 8, 8))
    assert "Conv" not in ops(result.model)


def test_matmul_of_three_dimensions() -> None:
    weights = {
        "w1": RNG.normal(size=(6, 8)),
        "b1": RNG.normal(size=8),
        "w2": RNG.normal(size=(8, 6)),
        "p": RNG.normal(size=(1, 5, 8)),
    }
    weights["w1"][:, [1, 5]] = 0
    nodes = [
        node("MatMul", "x w1", "a"),
        node("Add", "b1 a", "b"),
        node("Add", "b p", "c"),
        node("Gelu", "c", "d"),
        node("MatMul", "d w2", "y"),
    ]
    made = model(nodes, ("n", 5, 6), {"y": ("n", 5, 6)}, weights, opset=20)
    assert shapes(simplified(made, (2, 5, 6)).model, "MatMul") == [(6, 6), (6, 6)]


def test_reshape_with_a_hard_coded_shape() -> None:
    extra = {
        "shape": np.array([-1, 8 * 36]),
        "w3": RNG.normal(size=(8 * 36, 5)),
        "back": np.array([-1, 5, 1, 1]),
        "w2": RNG.normal(size=(4, 5, 1, 1)),
    }
    middle = [node("Reshape", "a shape", "p"), node("MatMul", "p w3", "q"), node("Reshape", "q back", "b")]
    made = between(middle, extra, 5)
    result = simplified(made, (1, 3, 8, 8), (3, 3, 8, 8))
    assert shapes(result.model, "MatMul") == [(5 * 36, 5)]


def test_initializers_as_inputs_are_constants_only_before_ir_4() -> None:
    for ir_version, simpler in ((3, True), (8, False)):
        made = between([node("Relu", "a", "b")], {}, 8, opset=8)
        made.ir_version = ir_version
        for tensor in made.graph.initializer:
            made.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        result = simplify(made)
        assert (result.model is not made) == simpler
        onnx.checker.check_model(result.model, full_check=True)


def test_unknown_operator_is_a_wall_but_its_surroundings_are_not() -> None:
    made = between([node("Relu", "a", "c"), node("Neg", "c", "d"), node("Relu", "d", "b")], {}, 8)
    made.graph.node[2].op_type, made.graph.node[2].domain = "Strange", "my.own"
    made.opset_import.append(helper.make_opsetid("my.own", 1))
    made.graph.node.insert(0, node("Conv", "x w0 b0", "x0"))
    made.graph.node[1].input[0] = "x0"
    for name, array in {"w0": filters(RNG, (3, 3, 1, 1), (1,)), "b0": RNG.normal(size=3)}.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    result = simplify(made)
    assert shapes(result.model, "Conv")[:2] == [(2, 3, 1, 1), (8, 2, 3, 3)]  # both around the wall, none through it
    assert [n for n in result.model.graph.node if n.domain == "my.own"]
    assert list(result.model.opset_import) == list(made.opset_import)


def test_subgraph_keeps_what_it_reads() -> None:
    then = helper.make_graph(
        [helper.make_node("Relu", ["a"], ["z1"])], "t", [], [helper.make_empty_tensor_value_info("z1")]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["a"], ["z2"])], "e", [], [helper.make_empty_tensor_value_info("z2")]
    )
    branch = [
        node("ReduceMax", "x", "top", keepdims=0), node("Greater", "top zero", "flag"),
        helper.make_node("If", ["flag"], ["b"], then_branch=then, else_branch=other),
    ]  # fmt: skip
    made = between(branch, {"zero": np.array(0.0)}, 8)
    result = simplified(made, (1, 3, 8, 8))
    assert shapes(result.model, "Conv") == [(8, 3, 3, 3), (4, 8, 1, 1)]


@pytest.mark.parametrize("bias", [0.0, 0.5])
@pytest.mark.parametrize(
    ("op", "sizes"),
    [("Expand", [2, 8, 5, 5]), ("Expand", [1, 1, 5, 5]), ("Tile", [1, 1, 5, 5])],
    ids=str,
)
def test_repeated_to_stored_sizes(op: str, sizes: list[int], bias: float) -> None:
    middle = [node("GlobalAveragePool", "a", "p"), node(op, "p sizes", "b")]
    made = dead_with(between(middle, {"sizes": np.array(sizes)}, 8), bias)
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    made.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    assert shapes(simplified(made, (2, 3, 8, 8)).model, "Conv") == [(5, 3, 3, 3), (4, 5, 1, 1)]


@pytest.mark.parametrize("bias", [0.0, 0.5])
@pytest.mark.parametrize("op", ["ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceMean", "ReduceMax"])
def test_reductions_over_the_image(op: str, bias: float) -> None:
    stored = op == "ReduceSum"
    reduce = node(op, "a axes" if stored else "a", "b", keepdims=1, **({} if stored else {"axes": [2, 3]}))
    made = dead_with(between([reduce], {"axes": np.array([2, 3])} if stored else {}, 8), bias)
    assert shapes(simplified(made, (2, 3, 8, 8)).model, "Conv") == [(5, 3, 3, 3), (4, 5, 1, 1)]


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_what_is_the_same_everywhere_has_no_variance(bias: float) -> None:
    extra = {"s": RNG.normal(size=8), "t": RNG.normal(size=8)}
    middle = [node("InstanceNormalization", "a s t", "i"), node("Relu", "i", "b")]
    made = dead_with(between(middle, extra, 8), bias)
    # onnxruntime computes (s / sqrt(eps)) x + (t - s mean / sqrt(eps)): the original is off by up to 0.5 * 316 * 2^-24.
    result = simplified(made, (2, 3, 8, 8), tolerance=2e-6 if bias == 0 else 2e-5).model
    assert shapes(result, "Conv") == [(5, 3, 3, 3), (4, 5, 1, 1)]


def dead_with(made: onnx.ModelProto, bias: float) -> onnx.ModelProto:
    """The same with this bias in the dead channels of the first layer."""
    array = onnx.numpy_helper.to_array(made.graph.initializer[1]).copy()
    array[[0, 3, 4]] = bias
    made.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(array, "b1"))
    return made
