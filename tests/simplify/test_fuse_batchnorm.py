"""BatchNormalization and affine chains fuse into the layer before or behind them, where that is exact."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from simplify.building import filters, model, node, ops, simplified

RNG = np.random.default_rng(3)


def parameters(n: int, dead: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    return {"s": filters(RNG, (n,), dead), "t": RNG.normal(size=n), "m": RNG.normal(size=n), "v": RNG.random(n) + 0.5}


@pytest.mark.parametrize("groups", [1, 2])
def test_after_convolution(groups: int) -> None:
    weights = {"w": RNG.normal(size=(6, 4 // groups, 3, 3)), "b": RNG.normal(size=6), **parameters(6)}
    nodes = [node("Conv", "x w b", "a", group=groups), node("BatchNormalization", "a s t m v", "y")]
    result = simplified(model(nodes, ("n", 4, 7, 7), {"y": ("n", 6, 5, 5)}, weights), (2, 4, 7, 7))
    assert ops(result.model) == ["Conv"]


@pytest.mark.parametrize("groups", [1, 2])
def test_after_transposed_convolution(groups: int) -> None:
    weights = {"w": RNG.normal(size=(4, 3, 3, 3)), **parameters(3 * groups)}
    nodes = [node("ConvTranspose", "x w", "a", group=groups), node("BatchNormalization", "a s t m v", "y")]
    result = simplified(model(nodes, (1, 4, 7, 7), {"y": (1, 3 * groups, 9, 9)}, weights), (1, 4, 7, 7))
    assert ops(result.model) == ["ConvTranspose"]


@pytest.mark.parametrize("transposed", [0, 1])
def test_after_gemm(transposed: int) -> None:
    weights = {"w": RNG.normal(size=(6, 4) if transposed else (4, 6)), "b": RNG.normal(size=6), **parameters(6)}
    nodes = [
        node("Gemm", "x w b", "a", transB=transposed, alpha=0.5, beta=2.0),
        node("BatchNormalization", "a s t m v", "y"),
    ]
    result = simplified(model(nodes, ("n", 4), {"y": ("n", 6)}, weights), (3, 4))
    assert ops(result.model) == ["Gemm"]


def test_after_matmul_and_add() -> None:
    weights = {"w": RNG.normal(size=(4, 6)), "b": RNG.normal(size=6), **parameters(6)}
    nodes = [node("MatMul", "x w", "a"), node("Add", "a b", "c"), node("BatchNormalization", "c s t m v", "y")]
    result = simplified(model(nodes, ("n", 4), {"y": ("n", 6)}, weights), (3, 4))
    assert ops(result.model) == ["MatMul", "Add"]


def test_affine_chain() -> None:
    weights = {
        "w": RNG.normal(size=(6, 3, 1, 1)),
        "a": RNG.normal(size=(6, 1, 1)),
        "b": RNG.normal(size=(1, 6, 1, 1)),
        "c": np.array(0.3),
    }
    nodes = [node("Conv", "x w", "p"), node("Mul", "p a", "q"), node("Sub", "b q", "r"), node("Div", "r c", "y")]
    result = simplified(model(nodes, (1, 3, 5, 5), {"y": (1, 6, 5, 5)}, weights), (1, 3, 5, 5))
    assert ops(result.model) == ["Conv"]


@pytest.mark.parametrize("pad", [0, 1])
def test_before_convolution_only_without_padding(pad: int) -> None:
    weights = {**parameters(3), "w": RNG.normal(size=(6, 3, 3, 3))}
    nodes = [node("BatchNormalization", "x s t m v", "a"), node("Conv", "a w", "y", pads=[pad] * 4)]
    result = simplified(model(nodes, (1, 3, 7, 7), {"y": (1, 6, 5 + 2 * pad, 5 + 2 * pad)}, weights), (1, 3, 7, 7))
    assert ops(result.model) == (["BatchNormalization", "Conv"] if pad else ["Conv"])


def test_a_second_reader_keeps_the_layer_as_it_is() -> None:
    weights = {"w": RNG.normal(size=(6, 3, 1, 1)), **parameters(6)}
    nodes = [node("Conv", "x w", "a"), node("BatchNormalization", "a s t m v", "y")]
    made = model(nodes, (1, 3, 5, 5), {"y": (1, 6, 5, 5), "a": (1, 6, 5, 5)}, weights)
    assert simplified(made, (1, 3, 5, 5)).model is made


def test_tied_weights_are_not_copied() -> None:
    weights = {"w": RNG.normal(size=(3, 3, 1, 1)), **parameters(3)}
    nodes = [
        node("Conv", "x w", "a"),
        node("BatchNormalization", "a s t m v", "b"),
        node("Conv", "b w", "c"),
        node("Relu", "c", "y"),
    ]
    made = model(nodes, (1, 3, 5, 5), {"y": (1, 3, 5, 5)}, weights)
    assert len(onnx.numpy_helper.to_array(simplified(made, (1, 3, 5, 5)).model.graph.initializer[0])) == 3


def test_training_mode_is_a_wall() -> None:
    weights = {"w": RNG.normal(size=(6, 3, 1, 1)), **parameters(6)}
    nodes = [node("Conv", "x w", "a"), node("BatchNormalization", "a s t m v", "y rm rv", training_mode=1)]
    made = model(nodes, (1, 3, 5, 5), {"y": (1, 6, 5, 5)}, weights)
    assert simplified(made, (1, 3, 5, 5)).model is made


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 5e-3), (np.float64, 1e-13)])
def test_other_types_are_computed_in_double(dtype: type, tolerance: float) -> None:
    weights = {
        "w": filters(RNG, (6, 4), (1,)).T * 0.5,
        "b": RNG.normal(size=6),
        **parameters(6),
        "w2": RNG.normal(size=(6, 3)) * 0.5,
    }
    nodes = [
        node("MatMul", "x w", "a"), node("Add", "a b", "c"), node("BatchNormalization", "c s t m v", "d"),
        node("Relu", "d", "e"), node("MatMul", "e w2", "y"),
    ]  # fmt: skip
    made = model(nodes, ("n", 4), {"y": ("n", 3)}, weights, dtype=dtype)
    result = simplified(made, (3, 4), tolerance=tolerance)
    assert ops(result.model)[:4] == ["MatMul", "Add", "Relu", "MatMul"]
