"""Dead channels that stay are named with the reason, and unstructured sparsity for what it is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from building import filters, model, node
from onnx import helper

from redy.simplify import Stayed, simplify
from redy.simplify.report import Dead, Why

DEAD = (0, 3, 4)


def behind(middle: list[onnx.NodeProto], extra: dict[str, np.ndarray], bias: float = 0.0) -> onnx.ModelProto:
    """Conv 3 -> 8 with three dead filters, `middle` from `a` to `b`, Conv 8 -> 4."""
    rng = np.random.default_rng(3)
    shift = rng.normal(size=8)
    shift[list(DEAD)] = bias
    weights = {"w1": filters(rng, (8, 3, 3, 3), DEAD), "b1": shift, "w2": rng.normal(size=(4, 8, 1, 1)), **extra}
    nodes = [node("Conv", "x w1 b1", "a"), *middle, node("Conv", "b w2", "y")]
    return model(nodes, ("n", 3, 8, 8), {"y": ("n", 4, None, None)}, weights)


def reasons(made: onnx.ModelProto) -> list[Stayed]:
    return simplify(made).report.left.stayed


def test_a_wall_is_named_with_why_it_is_one() -> None:
    made = behind([node("Relu", "a", "c"), node("Neg", "c", "b")], {})
    strange = made.graph.node[2]
    strange.op_type, strange.domain, strange.name = "Strange", "my.own", "Strange_b"
    made.opset_import.append(helper.make_opsetid("my.own", 1))
    assert reasons(made) == [
        Stayed("Conv_a", 3, 8, Dead.ZERO, Why.WALL, "Strange_b", "domain my.own is not the standard one")
    ]
    assert reasons(made)[0].text == (
        "Conv_a: 3 of 8 channels are zero and stay: read by Strange_b (domain my.own is not the standard one)"
    )


def test_an_output_of_the_model_is_named() -> None:
    made = behind([node("Relu", "a", "b")], {})
    made.graph.output.append(helper.make_tensor_value_info("a", 1, ("n", 8, 6, 6)))
    assert reasons(made) == [Stayed("Conv_a", 3, 8, Dead.ZERO, Why.OUTPUT, "a")]


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_a_sum_with_live_channels_is_named(bias: float) -> None:
    extra = {"g": np.random.default_rng(4).normal(size=(8, 8, 1, 1))}
    made = behind([node("Relu", "a", "c"), node("Conv", "c g", "d"), node("Add", "c d", "b")], extra, bias)
    dead = Dead.CONSTANT if bias else Dead.ZERO
    assert reasons(made) == [Stayed("Conv_a", 3, 8, dead, Why.TIED, "Conv_d")]


def test_a_reader_that_takes_no_constant_in_is_named() -> None:
    rng = np.random.default_rng(5)
    extra = {
        "p": np.array([2, 0, 1]),
        "W": rng.normal(size=(1, 12, 8)),
        "R": rng.normal(size=(1, 12, 3)),
        "B": rng.normal(size=(1, 24)),
    }
    shift = rng.normal(size=8)
    shift[list(DEAD)] = 0.5
    nodes = [
        node("Conv", "x w1 b1", "a"),
        node("Transpose", "a", "t", perm=[2, 0, 1]),
        node("Add", "t places", "u"),
        node("LSTM", "u W R B", "y", hidden_size=3),
    ]
    weights = {"w1": filters(rng, (8, 3, 3), DEAD), "b1": shift, "places": rng.normal(size=(6, 1, 1)), **extra}
    del weights["p"]
    made = model(nodes, ("n", 3, 8), {"y": (6, 1, "n", 3)}, weights)
    assert reasons(made) == [Stayed("Conv_a", 3, 8, Dead.CONSTANT, Why.CONSTANT, "LSTM_y")]


def test_groups_of_one_size_are_named() -> None:
    rng = np.random.default_rng(6)
    made = behind([node("Conv", "a g", "b", group=2)], {"g": rng.normal(size=(8, 4, 1, 1))})
    left = reasons(made)
    assert [(entry.layer, entry.channels, entry.why, entry.where) for entry in left] == [
        ("Conv_a", 1, Why.SHAPE, "Conv_b")
    ]


def test_nothing_is_named_where_everything_went() -> None:
    assert reasons(behind([node("Relu", "a", "b")], {})) == []


def test_unstructured_sparsity_is_told_from_dead_channels() -> None:
    rng = np.random.default_rng(7)
    made = behind([node("Relu", "a", "b")], {})
    stored = made.graph.initializer[2]
    weights = rng.normal(size=(4, 8, 1, 1)).astype(np.float32)
    weights.reshape(-1)[rng.permutation(32)[:16]] = 0
    stored.CopyFrom(onnx.numpy_helper.from_array(weights, "w2"))
    found = simplify(made).report.left.scattered
    assert [entry.layer for entry in found] == ["Conv_y"]
    assert 0.2 <= found[0].share <= 0.5
    assert simplify(behind([node("Relu", "a", "b")], {})).report.left.scattered == []
