"""Channels proved constant or linear elsewhere go through the same code as pruned ones."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from simplify.building import model, node, ops, run, shapes

from redy.simplify import ChannelFinding, simplify

RNG = np.random.default_rng(11)


def network() -> onnx.ModelProto:
    """Conv, ReLU, Conv; on inputs in [0, 1] the phases of the six units of the ReLU are forced by their biases."""
    w1 = RNG.uniform(-1, 1, size=(6, 3, 3, 3))
    bias = np.array([40.0, 40.0, -40.0, -40.0, 0.0, 0.0])
    weights = {"w1": w1, "b1": bias, "w2": RNG.normal(size=(4, 6, 3, 3)), "b2": RNG.normal(size=4)}
    nodes = [
        node("Conv", "x w1 b1", "a", pads=[1] * 4),
        node("Relu", "a", "r"),
        node("Conv", "r w2 b2", "y", pads=[1] * 4),
    ]
    return model(nodes, (1, 3, 6, 6), {"y": (1, 4, 6, 6)}, weights)


def equal_on_the_box(made: onnx.ModelProto, small: onnx.ModelProto) -> None:
    x = RNG.random((1, 3, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(run(small, x)[0], run(made, x)[0], rtol=0, atol=2e-4)


def test_inactive_channels_go() -> None:
    made = network()
    constant = np.array([np.nan, np.nan, 0.0, 0.0, np.nan, np.nan])
    result = simplify(made, findings={"r": ChannelFinding(constant)})
    assert shapes(result.model, "Conv") == [(4, 3, 3, 3), (4, 4, 3, 3)]
    equal_on_the_box(made, result.model)


def test_active_and_inactive_channels_together_lose_the_activation() -> None:
    made = network()
    bias = np.array([40.0, 40.0, -40.0, -40.0, 40.0, -40.0], dtype=np.float32)
    made.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(bias, "b1"))
    finding = ChannelFinding.lines([1, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0])
    result = simplify(made, findings={"r": finding})
    assert ops(result.model) == ["Conv", "Conv"]
    assert shapes(result.model, "Conv") == [(3, 3, 3, 3), (4, 3, 3, 3)]
    equal_on_the_box(made, result.model)


@pytest.mark.parametrize("size", [5, 7])
def test_finding_of_another_size_is_not_used(size: int) -> None:
    made = network()
    result = simplify(made, findings={"r": ChannelFinding(np.zeros(size))})
    assert result.model is made
