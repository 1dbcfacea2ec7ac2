"""What a prompt or a notebook shows of an object: one short line, and escaped HTML."""

from __future__ import annotations

import numpy as np
import pytest

import redy


@pytest.fixture(scope="module")
def network(models):
    return redy.read_network(models / "avoidance.onnx")


def test_networks_boxes_and_reductions_are_one_short_line(network, models):
    box = redy.read_box(models / "avoidance_close.box.json", network.input.shape)
    reduction = redy.reduce(network, box, criteria=("phase",), engine="linear")
    for thing in (network, box, reduction):
        assert "\n" not in repr(thing)
        assert len(repr(thing)) < 400
        assert repr(thing).startswith(type(thing).__name__)
    assert "3,525 parameters" in repr(network)
    assert reduction._repr_html_().count("<tr>") == 4


def test_a_large_box_is_still_short():
    assert len(repr(redy.Box(np.zeros((3, 64, 64)), np.ones((3, 64, 64))))) < 120
