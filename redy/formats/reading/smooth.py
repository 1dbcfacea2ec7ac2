"""Elementwise ONNX operators that are not piecewise linear, as float64 numpy functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from redy.model import Array

Function = Callable[[Array], Array]

_erf_of_number = np.frompyfunc(math.erf, 1, 1)


def _erf(x: Array) -> Array:
    return np.asarray(_erf_of_number(x)).astype(np.float64)


def _sigmoid(x: Array) -> Array:
    # exp of a negative number only, so that nothing overflows.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, 0.0)


def _gelu(approximate: str) -> Function:
    if approximate == "tanh":
        return lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _elu(alpha: float) -> Function:
    return lambda x: np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def _selu(alpha: float, gamma: float) -> Function:
    return lambda x: gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def _celu(alpha: float) -> Function:
    return lambda x: np.maximum(x, 0.0) + np.minimum(0.0, alpha * np.expm1(np.minimum(x, 0.0) / alpha))


def _shrink(bias: float, lambd: float) -> Function:
    return lambda x: np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0.0))


def _quiet(function: Callable[[Array], Array]) -> Callable[[], Function]:
    """A function with poles: its infinities and NaNs are its values, as in ONNX."""

    def evaluate(x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(function(x))

    return lambda: evaluate


def _plain(function: Callable[[Array], Array]) -> Callable[[], Function]:
    return lambda: function


def _f32(number: float) -> float:
    """A default attribute as the file's float32 would hold it."""
    return float(np.float32(number))


SMOOTH: dict[str, tuple[dict[str, Any], Callable[..., Function]]] = {
    "Sigmoid": ({}, _plain(_sigmoid)),
    "Tanh": ({}, _plain(np.tanh)),
    "Softplus": ({}, _plain(_softplus)),
    "Softsign": ({}, _plain(lambda x: x / (1 + np.abs(x)))),
    "Erf": ({}, _plain(_erf)),
    "Gelu": ({"approximate": "none"}, _gelu),
    "HardSwish": ({}, _plain(lambda x: x * np.clip(x / 6 + 0.5, 0.0, 1.0))),
    "Mish": ({}, _plain(lambda x: x * np.tanh(_softplus(x)))),
    "Swish": ({"alpha": 1.0}, lambda alpha: lambda x: x * _sigmoid(alpha * x)),
    "Elu": ({"alpha": 1.0}, _elu),
    "Selu": ({"alpha": _f32(1.67326319217681884765625), "gamma": _f32(1.05070102214813232421875)}, _selu),
    "Celu": ({"alpha": 1.0}, _celu),
    "ThresholdedRelu": ({"alpha": 1.0}, lambda alpha: lambda x: np.where(x > alpha, x, 0.0)),
    "Shrink": ({"bias": 0.0, "lambd": 0.5}, _shrink),
    "Exp": ({}, _quiet(np.exp)),
    "Log": ({}, _quiet(np.log)),
    "Sqrt": ({}, _quiet(np.sqrt)),
    "Reciprocal": ({}, _quiet(lambda x: 1 / x)),
    "Sin": ({}, _plain(np.sin)),
    "Cos": ({}, _plain(np.cos)),
    "Tan": ({}, _plain(np.tan)),
    "Atan": ({}, _plain(np.arctan)),
    "Sinh": ({}, _quiet(np.sinh)),
    "Cosh": ({}, _quiet(np.cosh)),
    "Asinh": ({}, _plain(np.arcsinh)),
    "Floor": ({}, _plain(np.floor)),
    "Ceil": ({}, _plain(np.ceil)),
    "Round": ({}, _plain(np.rint)),
    "Sign": ({}, _plain(np.sign)),
}
"""ONNX operator -> its attributes with their defaults, and a maker of its function from them."""
