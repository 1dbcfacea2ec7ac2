"""A quotient of two values is a product with a reciprocal, which has a range where the divisor has one sign."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import model_of, node, reference

import redy
from redy.bounds.interval import ranges
from redy.formats.onnx_read import read_network
from redy.formats.onnx_run import Session
from redy.formats.onnx_write import to_model
from redy.model import Box
from redy.model.digest import network_digest


def quotient(*, offset: float):
    """y = (A x) / (B x + offset), the divisor broadcast from one element."""
    rng = np.random.default_rng(0)
    weights = {
        "A": rng.normal(size=(4, 3)).astype(np.float32),
        "B": np.array([[0.0], [0.0], [1.0], [0.0]], dtype=np.float32),
        "c": np.array([offset], dtype=np.float32),
    }
    nodes = [node("MatMul", "x A", "a"), node("MatMul", "x B", "b"), node("Add", "b c", "d"), node("Div", "a d")]
    return model_of(nodes, ["batch", 4], weights)


def test_a_quotient_is_read_and_written_as_the_same_numbers():
    model = quotient(offset=3.0)
    network = read_network(model)
    written = to_model(network)
    x = np.random.default_rng(1).uniform(-1, 1, (20, 4)).astype(np.float32)
    expected = reference(model, x)[0]
    np.testing.assert_allclose(network.evaluate(x.astype(np.float64)), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(Session(written).run_all(x)[0], expected, rtol=1e-5, atol=1e-6)
    assert network_digest(read_network(written)) == network_digest(network)


@pytest.mark.parametrize(("offset", "finite"), [(3.0, True), (-3.0, True), (0.5, False)])
def test_the_range_of_a_quotient_holds_every_point_and_is_infinite_around_a_pole(offset, finite):
    network = read_network(quotient(offset=offset))
    box = Box(np.full(4, -1.0), np.ones(4))
    found = ranges(network, box, leave_unsupported=True)["y"]
    values = network.evaluate(box.sample(500, np.random.default_rng(2)))
    assert np.isfinite(found[0]).all() == finite
    assert (values >= found[0]).all()
    assert (values <= found[1]).all()


def test_a_divisor_that_the_box_fixes_becomes_a_factor_and_the_file_is_proved():
    network = read_network(quotient(offset=3.0))
    lower = np.array([-1.0, -1.0, 0.5, -1.0])
    box = Box(lower, np.where(lower == 0.5, 0.5, 1.0))
    reduction = redy.reduce(network, box, effort="quick")
    assert reduction.model is not None
    assert reduction.network.parameters == 3 * 3 + 3
    assert max(float(error.max()) for error in reduction.guarantee.error.values()) < 1e-5
