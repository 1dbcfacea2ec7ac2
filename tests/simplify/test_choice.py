"""Which form is given back: the cost model's choice, the same on every run; the clock only vetoes."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from building import filters, model, node, shapes

from redy.simplify import choice as choosing
from redy.simplify import simplify
from redy.simplify.choice import SLOWEST, Choice
from redy.simplify.cost import count
from redy.simplify.graph import Graph
from redy.simplify.latency import Latency, interval
from redy.simplify.pipeline import rewritten


def mobile(size: int | str = 28) -> onnx.ModelProto:
    """1x1, depthwise 3x3 with padding, 1x1: pruned to 19 of 48 channels, some of them constants."""
    rng = np.random.default_rng(0)
    dead = rng.permutation(48)[:29]
    weights = {
        "w1": filters(rng, (48, 16, 1, 1), dead),
        "b1": rng.normal(size=48),
        "d": rng.normal(size=(48, 1, 3, 3)),
        "w2": rng.normal(size=(16, 48, 1, 1)),
    }
    nodes = [
        node("Conv", "x w1 b1", "a"),
        node("Relu", "a", "r"),
        node("Conv", "r d", "c", group=48, pads=[1, 1, 1, 1]),
        node("Relu", "c", "s"),
        node("Conv", "s w2", "y"),
    ]
    return model(nodes, ("n", 16, size, size), {"y": ("n", 16, None, None)}, weights)


def timer(monkeypatch: pytest.MonkeyPatch, ratios: list[float]) -> list[float]:
    """Let the clock answer these ratios in turn; returns those not yet asked for."""

    def measured(*_: object) -> Latency:
        ratio = ratios.pop(0)
        return Latency(1.0, ratio, ratio, ratio, ratio, "x 1")

    monkeypatch.setattr(choosing, "measure", measured)
    return ratios


def result(made: onnx.ModelProto) -> bytes:
    return simplify(made, optimize="latency").model.SerializeToString(deterministic=True)


def test_a_faster_and_a_much_faster_clock_give_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    timer(monkeypatch, [0.3])
    first = result(mobile())
    timer(monkeypatch, [1.01])
    assert result(mobile()) == first


def test_a_veto_gives_the_next_form_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    timer(monkeypatch, [0.5])
    first = simplify(mobile(), optimize="latency")
    timer(monkeypatch, [1.5, 0.9])
    second = simplify(mobile(), optimize="latency")
    assert second.model != first.model
    assert second.report.latency is not None
    assert second.report.latency.ratio == 0.9
    assert second.report.notes


def test_what_is_slower_in_every_form_is_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    made = mobile()
    timer(monkeypatch, [1.5] * 10)
    found = simplify(made, optimize="latency")
    assert found.model is made
    assert any("slower" in reason for reason in found.report.refused)


def test_a_model_that_is_all_overhead_is_made_small_and_its_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made = mobile(6)
    timer(monkeypatch, [1.5])
    found = simplify(made, optimize="latency")
    assert found.report.after.multiply_adds < found.report.before.multiply_adds
    assert any("1.50" in note for note in found.report.notes)


def test_forms_and_their_estimates() -> None:
    """Without border maps the constants stay; with blocks the depthwise layer has a multiple of 8 channels."""
    made = mobile()
    full, flat, filled = (
        rewritten(made, c) for c in (Choice("auto"), Choice("auto").fewer()[0], Choice("auto").filled)
    )
    assert shapes(full.model, "Conv")[0][0] < shapes(flat.model, "Conv")[0][0]
    assert shapes(filled.model, "Conv")[0][0] % 8 == 0
    assert filled.report.after.estimate < full.report.after.estimate
    assert full.report.after.unblocked > 0
    assert filled.report.after.unblocked == 0


def test_dynamic_sizes_are_counted_at_nominal_ones() -> None:
    import onnx_ir as ir

    named, fixed = mobile("s"), mobile(224)
    costs = [count(Graph(ir.from_proto(made))) for made in (named, fixed)]
    assert dataclasses.astuple(costs[0]) == dataclasses.astuple(costs[1])


def test_shapes_are_as_before_behind_a_count() -> None:
    import onnx_ir as ir

    graph = Graph(ir.from_proto(mobile("s")))
    before = [value.shape for node in graph.nodes() for value in node.outputs]
    count(graph)
    assert [value.shape for node in graph.nodes() for value in node.outputs] == before


def test_the_interval_of_a_median_holds_it() -> None:
    rng = np.random.default_rng(1)
    low, high = interval(sorted(rng.normal(size=101).tolist()))
    assert low < 0 < high
    assert interval([1.0, 2.0, 3.0]) == (1.0, 3.0)
    missed = 0
    for _ in range(2000):
        low, high = interval(sorted(rng.normal(size=21).tolist()))
        missed += not low <= 0 <= high
    assert missed <= 12  # 4 are expected; 12 or more have a chance below 1e-3
    assert SLOWEST == 1.02
