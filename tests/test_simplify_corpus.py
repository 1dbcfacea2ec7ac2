"""Every model of the corpus comes out of `simplify` right, valid, no larger, and near the ideal."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from simplify_corpus import ARCHITECTURES, PATTERNS, Built, architecture
from simplify_corpus.compare import feeds, runner
from simplify_corpus.cost import multiply_adds, parameters
from simplify_corpus.random_graphs import random_graph
from simplify_corpus.verdict import SLACK, Verdict, judge

from redy.simplify import simplify

Case = tuple[str, str, float]

NETWORKS: list[Case] = [(n, k, r) for n in ARCHITECTURES for k in ("zero", "constant") for r in (0.5, 0.8)]
SINGLES: list[Case] = [(n, k, 0.5) for n, p in PATTERNS.items() for k in p.kinds]


def build(case: Case) -> Built:
    """The model of a case; networks are narrow variants."""
    name, kind, ratio = case
    if name in PATTERNS:
        return PATTERNS[name].build(kind, ratio)
    return architecture(name, kind=kind, ratio=ratio)


@cache
def verdict(case: Case) -> Verdict:
    """Simplify without the self-check, which would hide mistakes as refusals, and judge."""
    built = build(case)
    tolerance = PATTERNS[case[0]].tolerance if case[0] in PATTERNS else 1e-4
    return judge(built, simplify(built.model, check=False).model, tolerance)


def label(case: Case) -> str:
    """Name of a case in reports."""
    return "-".join(str(part) for part in case)


@pytest.mark.parametrize("case", [*NETWORKS, *SINGLES], ids=label)
def test_result_is_right_valid_and_no_larger(case: Case) -> None:
    assert verdict(case).wrong == ()


@pytest.mark.parametrize("case", NETWORKS, ids=label)
def test_networks_reach_the_ideal(case: Case) -> None:
    found = verdict(case)
    assert found.after <= SLACK * found.ideal_with_carriers


def test_patterns_reach_the_ideal() -> None:
    measured = [case for case in SINGLES if PATTERNS[case[0]].measured]
    short = [label(case) for case in measured if not verdict(case).reached]
    assert len(short) <= 0.05 * len(measured), short


@pytest.mark.parametrize("case", [("resnet18", "constant", 0.5), ("gate_excitation", "zero", 0.5)], ids=label)
@pytest.mark.parametrize("residual", ["union", "expand", "auto"])
def test_every_way_to_treat_residuals_is_right(case: Case, residual: str) -> None:
    built = build(case)
    result = simplify(built.model, residual=residual, check=False)
    assert judge(built, result.model).wrong == ()


@pytest.mark.parametrize("case", [("resnet18", "constant", 0.5), ("dynamic_depthwise", "constant", 0.5)], ids=label)
def test_a_second_pass_finds_nothing_more(case: Case) -> None:
    built = build(case)
    once = simplify(built.model, check=False).model
    twice = simplify(once, check=False).model
    sizes = built.shapes[0]
    assert multiply_adds(twice, sizes) == multiply_adds(once, sizes)
    assert parameters(twice) == parameters(once)


def test_input_model_is_not_changed() -> None:
    built = build(("resnet18", "constant", 0.5))
    before = built.model.SerializeToString(deterministic=True)
    simplify(built.model, check=False)
    assert built.model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("seed", range(24))
def test_random_graphs_stay_right(seed: int) -> None:
    built = random_graph(seed)
    assert judge(built, simplify(built.model, check=False).model).wrong == ()


@pytest.mark.parametrize("case", [*NETWORKS, *SINGLES], ids=label)
def test_corpus_itself_loads_and_runs(case: Case) -> None:
    built = build(case)
    onnx.checker.check_model(built.model, full_check=True)
    run = runner(built.model)
    results = [run(feed) for feed in feeds(built.model, built.shapes)]
    assert len({len(r) for r in results}) == 1
    assert case[0] == "nan_weights" or all(np.isfinite(a).all() for a in results[0])
    assert 0 <= built.ideal <= built.ideal_with_carriers
    assert built.ideal <= multiply_adds(built.model, built.shapes[0])


@pytest.mark.parametrize(
    ("name", "cost", "size"),
    [
        ("vgg16", 15.47e9, 138.36e6), ("resnet18", 1.814e9, 11.69e6), ("resnet50", 4.089e9, 25.56e6),
        ("resnext50", 4.230e9, 25.03e6), ("mobilenet_v2", 0.301e9, 3.50e6), ("mobilenet_v3", 0.217e9, 5.48e6),
        ("shufflenet_v2", 0.145e9, 2.28e6), ("densenet121", 2.834e9, 7.98e6), ("squeezenet", 0.349e9, 1.24e6),
        ("googlenet", 1.498e9, 6.62e6), ("efficientnet_b0", 0.386e9, 5.29e6),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_full_widths_have_the_published_costs(name: str, cost: float, size: float) -> None:
    built = architecture(name, width=1.0, size=224)
    assert multiply_adds(built.model, built.shapes[0]) == pytest.approx(cost, rel=0.01)
    assert parameters(built.model) == pytest.approx(size, rel=0.015)
