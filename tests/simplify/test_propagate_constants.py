"""Constants of zeroed channels: the real function at the real constant, into bias, map or carrier."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simplify.building import filters, model, node, ops, shapes, simplified, weights_of

from redy.simplify.axes import UNIFORM, Listed, Near, Window, merge

RNG = np.random.default_rng(7)
ACTIVATIONS = [
    "Relu",
    "Sigmoid",
    "HardSigmoid",
    "Softplus",
    "Tanh",
    "Elu",
    "Selu",
    "Softsign",
    "HardSwish",
    "Exp",
    "Cos",
    "Gelu",
]


def chain(
    activation: str,
    *,
    pad: int = 0,
    dead: tuple[int, ...] = (1, 3, 4),
    opset: int = 20,
    dims: tuple = (1, 3, 9, 8),
    stride: int = 1,
):
    """Conv, activation, Conv; the filters `dead` of the first are zero but their biases are not."""
    weights = {
        "w1": filters(RNG, (6, 3, 3, 3), dead),
        "b1": RNG.normal(size=6),
        "w2": RNG.normal(size=(4, 6, 3, 3)),
        "b2": RNG.normal(size=4),
    }
    out = (dims[0], 4, None, None)
    nodes = [
        node("Conv", "x w1 b1", "a"),
        node(activation, "a", "r"),
        node("Conv", "r w2 b2", "y", pads=[pad] * 4, strides=[stride] * 2),
    ]
    return model(nodes, dims, {"y": out}, weights, opset=opset)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("pad", [0, 1])
def test_constant_goes_through_the_real_function(activation: str, pad: int) -> None:
    result = simplified(chain(activation, pad=pad), (1, 3, 9, 8))
    assert shapes(result.model, "Conv")[0][0] == 3
    assert shapes(result.model, "Conv")[1] == (4, 3, 3, 3)


def test_unpadded_convolution_takes_the_constant_into_its_bias() -> None:
    result = simplified(chain("Sigmoid"), (1, 3, 9, 8))
    assert ops(result.model) == ["Conv", "Sigmoid", "Conv"]


def test_padded_convolution_gets_a_map_that_differs_at_the_border() -> None:
    result = simplified(chain("Sigmoid", pad=1), (1, 3, 9, 8))
    assert ops(result.model)[-1] == "Add"
    assert result.report.constants_propagated == 3


@pytest.mark.parametrize("stride", [1, 2])
def test_dynamic_height_and_width_stay_dynamic(stride: int) -> None:
    made = chain("Sigmoid", pad=1, dims=("n", 3, "h", "w"), stride=stride)
    result = simplified(made, (1, 3, 9, 8), (2, 3, 3, 3), (1, 3, 4, 17), (3, 3, 20, 5))
    kept = shapes(result.model, "Conv")[1][1]
    assert kept == (3 if stride == 1 else 4)  # a stride needs one carrier channel


def test_filters_that_only_sum_to_zero_are_alive() -> None:
    made = chain("Relu", dead=())
    weight = weights_of(made)["w1"].copy()
    weight[2] -= weight[2].mean()
    made.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight.astype(np.float32), "w1"))
    result = simplified(made, (1, 3, 9, 8))
    assert result.model is made


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_never_taken_for_zero(bad: float) -> None:
    made = chain("Relu", dead=(1,))
    weight = weights_of(made)["w1"].copy()
    weight[1, 0, 0, 0] = bad
    made.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight.astype(np.float32), "w1"))
    from redy.simplify import simplify

    assert simplify(made, check=False).model is made


def test_constant_of_infinite_bias_stays() -> None:
    made = chain("Relu", dead=(1,))
    bias = weights_of(made)["b1"].copy()
    bias[1] = np.inf
    made.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(bias.astype(np.float32), "b1"))
    from redy.simplify import simplify

    assert simplify(made, check=False).model is made


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pad_value_is_not_zero(mode: str) -> None:
    weights = {
        "w1": filters(RNG, (6, 3, 1, 1), (0, 2)), "b1": RNG.normal(size=6), "w2": RNG.normal(size=(2, 6, 3, 3)),
        "pads": np.array([0, 0, 1, 2, 0, 0, 2, 1]), "v": np.array(0.75),
    }  # fmt: skip
    nodes = [
        node("Conv", "x w1 b1", "a"),
        node("Pad", "a pads v" if mode == "constant" else "a pads", "p", mode=mode),
        node("Conv", "p w2", "y"),
    ]
    result = simplified(model(nodes, (1, 3, 7, 7), {"y": (1, 2, 8, 8)}, weights), (1, 3, 7, 7))
    assert shapes(result.model, "Conv")[1][1] == 4


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
def test_pooling_with_padding(op: str, include: int) -> None:
    dead = tuple(range(12))  # so many that the table of the map is smaller than what goes
    weights = {"w1": filters(RNG, (16, 3, 3, 3), dead), "b1": RNG.normal(size=16), "w2": RNG.normal(size=(2, 16, 1, 1))}
    extra = {"count_include_pad": include} if op == "AveragePool" else {}
    nodes = [
        node("Conv", "x w1 b1", "a"),
        node(op, "a", "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1], **extra),
        node("Conv", "p w2", "y"),
    ]
    result = simplified(model(nodes, (1, 3, 9, 9), {"y": (1, 2, None, None)}, weights), (1, 3, 9, 9))
    assert shapes(result.model, "Conv")[1][1] == 4


def test_flatten_turns_a_map_into_numbers() -> None:
    weights = {
        "w1": filters(RNG, (4, 3, 3, 3), (1, 2)), "b1": RNG.normal(size=4), "d": RNG.normal(size=(4, 1, 3, 3)),
        "w2": RNG.normal(size=(5, 4 * 36)), "b2": RNG.normal(size=5),
    }  # fmt: skip
    nodes = [
        node("Conv", "x w1 b1", "a", pads=[1] * 4),
        node("Conv", "a d", "e", pads=[1] * 4, group=4),
        node("Flatten", "e", "f", axis=1),
        node("Gemm", "f w2 b2", "y", transB=1),
    ]
    result = simplified(model(nodes, ("n", 3, 6, 6), {"y": ("n", 5)}, weights), (1, 3, 6, 6), (4, 3, 6, 6))
    assert shapes(result.model, "Gemm") == [(5, 72)]
    assert ops(result.model) == ["Conv", "Conv", "Flatten", "Gemm"]


@settings(max_examples=150, deadline=None)
@given(
    length=st.integers(1, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    begin=st.integers(0, 3),
    end=st.integers(0, 3),
    dynamic=st.booleans(),
    data=st.data(),
)
def test_window_reads_what_a_convolution_reads(
    length: int, kernel: int, stride: int, dilation: int, begin: int, end: int, dynamic: bool, data: st.DataObject
) -> None:
    out = (length + begin + end - dilation * (kernel - 1) - 1) // stride + 1
    if out < 1:
        return
    axis = data.draw(st.sampled_from([UNIFORM, Near(1, 2), Listed(np.arange(length))])) if not dynamic else Near(1, 2)
    window = Window(None if dynamic else length, None if dynamic else out, kernel, stride, dilation, begin, end)
    slid = window.slide(axis)
    if slid is None:
        assert dynamic
        assert stride > 1
        return
    classes = np.concatenate([np.full(begin, -1), axis.classes(length), np.full(end, -1)])
    expected = np.stack([classes[o * stride : o * stride + dilation * (kernel - 1) + 1 : dilation] for o in range(out)])
    joint, taps = slid
    np.testing.assert_array_equal(taps[joint.classes(out)], expected)


@given(
    length=st.integers(1, 8),
    a=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    b=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_merged_axes_refine_both(length: int, a: tuple[int, int], b: tuple[int, int]) -> None:
    rng = np.random.default_rng(length)
    for one, two in [
        (Near(*a), Near(*b)),
        (Near(*a), Listed(np.unique(rng.integers(0, 3, length), return_inverse=True)[1])),
        (UNIFORM, Near(*b)),
    ]:
        joint, first, second = merge(one, two)
        np.testing.assert_array_equal(first[joint.classes(length)], one.classes(length))
        np.testing.assert_array_equal(second[joint.classes(length)], two.classes(length))
