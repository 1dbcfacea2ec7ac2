"""Convolution and pooling: their verbs fit together, and the values are those of onnxruntime."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import model_of, node

from redy.formats.onnx_run import Session
from redy.model.convolution import AveragePool, Conv, ConvTranspose, Windows


@st.composite
def windows(draw):
    rank = draw(st.integers(1, 3))
    numbers = st.integers(1, 3)
    kernel = tuple(draw(numbers) for _ in range(rank))
    strides, dilations = (tuple(draw(numbers) for _ in range(rank)) for _ in range(2))
    pads = tuple(draw(st.integers(0, 2)) for _ in range(2 * rank))
    spatial = tuple(draw(st.integers(1, 3)) + d * (k - 1) for k, d in zip(kernel, dilations, strict=True))
    return Windows(spatial, kernel, strides, dilations, pads)


@st.composite
def operators(draw):
    geometry = draw(windows())
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    groups, each, out = (draw(st.integers(1, 2)) for _ in range(3))
    conv = Conv(rng.normal(size=(groups * out, each, *geometry.kernel)), groups * each, geometry, groups)
    if draw(st.booleans()):
        return conv if draw(st.booleans()) else ConvTranspose(conv)
    counts = geometry.counts()
    divisor = counts if (counts > 0).all() else np.full(geometry.out_spatial, float(math.prod(geometry.kernel)))
    return AveragePool(2, geometry, divisor)


@settings(deadline=None)
@given(operators(), st.integers(0, 1000))
def test_verbs_agree_with_the_matrix(operator, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, *operator.in_shape))
    c = rng.normal(size=(2, *operator.out_shape))
    W = operator.matrix()
    assert W.shape == (math.prod(operator.out_shape), math.prod(operator.in_shape))
    flat, rows = x.reshape(3, -1), c.reshape(2, -1)
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(operator.apply(x).reshape(3, -1), flat @ W.T, **close)
    np.testing.assert_allclose(operator.adjoint(c).reshape(2, -1), rows @ W, **close)
    np.testing.assert_allclose(operator.spread(np.abs(x)).reshape(3, -1), np.abs(flat) @ np.abs(W).T, **close)
    np.testing.assert_allclose(operator.spread(x).reshape(3, -1), flat @ np.abs(W).T, **close)
    np.testing.assert_allclose(operator.adjoint_spread(c).reshape(2, -1), np.abs(rows) @ np.abs(W), **close)
    assert (np.count_nonzero(W, axis=1) <= operator.fan_in).all()
    assert (np.count_nonzero(W, axis=0) <= operator.fan_in).all() or isinstance(operator, AveragePool)


@settings(deadline=None, max_examples=40)
@given(windows(), st.integers(0, 1000))
def test_convolution_agrees_with_onnxruntime(geometry, seed):
    rng = np.random.default_rng(seed)
    operator = Conv(rng.normal(size=(4, 1, *geometry.kernel)).astype(np.float32), 2, geometry, 2)
    attributes = {
        "kernel_shape": geometry.kernel,
        "strides": geometry.strides,
        "dilations": geometry.dilations,
        "pads": geometry.pads,
    }
    conv = node("Conv", "x w", group=2, **attributes)
    model = model_of([conv], ("N", *operator.in_shape), {"w": operator.weight.astype(np.float32)})
    x = rng.normal(size=(2, *operator.in_shape)).astype(np.float32)
    np.testing.assert_allclose(operator.apply(x), Session(model).run(x), rtol=1e-4, atol=1e-5)


def test_large_batches_are_cut_into_chunks(monkeypatch):
    geometry = Windows((5, 5), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    operator = Conv(np.random.default_rng(0).normal(size=(2, 3, 3, 3)), 3, geometry)
    x = np.random.default_rng(1).normal(size=(7, 3, 5, 5))
    whole = operator.apply(x), operator.adjoint(operator.apply(x))
    monkeypatch.setattr("redy.model.convolution._CHUNK", 1000)
    np.testing.assert_allclose(operator.apply(x), whole[0], rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(operator.adjoint(operator.apply(x)), whole[1], rtol=1e-13, atol=1e-12)


def test_work_and_weights_are_counted():
    conv = Conv(np.ones((8, 3, 3, 3)), 3, Windows((6, 6), (3, 3), (1, 1), (1, 1), (0, 0, 0, 0)))
    assert (conv.parameters, conv.macs, conv.out_shape) == (216, 216 * 16, (8, 4, 4))


@pytest.mark.parametrize("bad", [{"kernel": (9, 1)}, {"strides": (0, 1)}, {"pads": (0, 0, -1, 0)}, {"kernel": (1,)}])
def test_geometry_that_does_not_fit_is_refused(bad):
    fields = {"spatial": (5, 5), "kernel": (2, 2), "strides": (1, 1), "dilations": (1, 1), "pads": (0,) * 4}
    with pytest.raises(ValueError, match=r"kernel|window|pads"):
        Windows(**(fields | bad))
