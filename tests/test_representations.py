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


def test_notebooks_show_escaped_tables(network, models):
    from redy.model import Proof

    box = redy.read_box(models / "avoidance_close.box.json", network.input.shape)
    assert network._repr_html_().count("<tr>") == 1 + len(list(network.activations))
    assert box._repr_html_().count("<tr>") == 1 + box.size
    wide = redy.Box(np.zeros(100), np.ones(100))._repr_html_()
    assert "and 84 more" in wide
    verdicts = {
        "proved": redy.Proved(Proof("y < 1 & x > 0", "linear")),
        "refuted": redy.Refuted(np.zeros(3)),
        "unknown": redy.Unknown("<time>"),
    }
    for word, verdict in verdicts.items():
        shown = verdict._repr_html_()
        assert f"<b>{word}</b>" in shown
        assert "<time>" not in shown
        assert " & " not in shown


def test_a_family_shows_how_much_was_removed(models, network):
    box = redy.read_box(models / "avoidance_close.box.json", network.input.shape)
    family = redy.slice_network(models / "avoidance.onnx", box, splits=(2, 1, 1, 1, 1))
    assert family._repr_html_().count("<tr>") == 6
