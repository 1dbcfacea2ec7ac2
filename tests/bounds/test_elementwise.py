from __future__ import annotations

import math

import numpy as np
import pytest

from redy.bounds.elementwise import INCREASING, VALLEY, elementwise_image
from redy.errors import Unsupported
from redy.model import Elementwise

erf = np.vectorize(math.erf)
SELU = 1.0507009873554805, 1.6732632423543772
FUNCTIONS = {
    "Asinh": np.arcsinh,
    "Atan": np.arctan,
    "Ceil": np.ceil,
    "Celu": lambda x: np.maximum(x, 0) + np.minimum(0, np.expm1(x)),
    "Elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "Erf": erf,
    "Exp": np.exp,
    "Floor": np.floor,
    "Gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "Selu": lambda x: SELU[0] * np.where(x > 0, x, SELU[1] * np.expm1(x)),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Silu": lambda x: x / (1 + np.exp(-x)),
    "Sinh": np.sinh,
    "Softplus": lambda x: np.log1p(np.exp(x)),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Swish": lambda x: x / (1 + np.exp(-x)),
    "Tanh": np.tanh,
}


@pytest.mark.parametrize("operator", sorted({*INCREASING, *VALLEY}))
def test_images_enclose_and_are_tight(operator):
    rng = np.random.default_rng(0)
    function = FUNCTIONS[operator]
    ends = np.sort(rng.normal(size=(2, 300)) * 2, axis=0)
    low, high = elementwise_image(Elementwise("s", "x", (300,), operator, {}, function), *ends)
    x = ends[0] + (ends[1] - ends[0]) * np.linspace(0, 1, 4001)[:, None]
    y = function(x)
    assert (y >= low).all()
    assert (y <= high).all()
    np.testing.assert_allclose(high, y.max(axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(low, y.min(axis=0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("operator", sorted(VALLEY))
def test_valleys_fall_and_then_rise(operator):
    left, right, lowest = VALLEY[operator]
    y = FUNCTIONS[operator](np.linspace(-30, left, 20000))
    assert (np.diff(y) <= 1e-15).all()
    y = FUNCTIONS[operator](np.linspace(right, 30, 20000))
    assert (np.diff(y) >= -1e-15).all()
    assert lowest <= FUNCTIONS[operator](np.linspace(left, right, 1000)).min()


@pytest.mark.parametrize(("operator", "attributes"), [("Sin", {}), ("Elu", {"alpha": -1.0}), ("Swish", {"alpha": 2.0})])
def test_other_functions_are_refused_by_name(operator, attributes):
    node = Elementwise("strange", "x", (1,), operator, attributes, np.sin)
    with pytest.raises(Unsupported, match=f"strange: {operator}"):
        elementwise_image(node, np.zeros(1), np.ones(1))
