"""Lines around smooth functions hold, and are near to the best ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_elementwise import FUNCTIONS

from redy.bounds.interval import interval_bounds
from redy.bounds.linear import linear_bounds, value_bounds
from redy.bounds.result import Bounds
from redy.bounds.smooth import CURVATURE, KINKS, curved, relax_smooth, smooth_image
from redy.model import Activate, Affine, Box, Dense, Elementwise, Limits, Network, Port, Product, Term
from redy.model.functions import relu

ALL = {**FUNCTIONS, "Sin": np.sin, "Cos": np.cos}
NAMES = sorted({*CURVATURE, "Exp"})


def _node(operator: str, size: int, **attributes: float) -> Elementwise:
    return Elementwise("s", "x", (size,), operator, attributes, ALL[operator])


@pytest.mark.parametrize("operator", NAMES)
def test_the_curvature_is_the_largest_second_difference(operator):
    if operator == "Exp":
        return
    x = np.linspace(-12, 12, 240_001)
    for kink in KINKS.get(operator, ()):
        x = x[np.abs(x - kink) > 2e-4]
    h = 1e-4
    second = (ALL[operator](x + h) - 2 * ALL[operator](x) + ALL[operator](x - h)) / h**2
    inside = np.ones(x.size, dtype=bool)
    for kink in KINKS.get(operator, ()):
        inside &= np.abs(x - kink) > 3 * h
    assert np.abs(second[inside]).max() <= CURVATURE[operator] + 1e-4


@pytest.mark.parametrize("operator", NAMES)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-9, 1e-3, 1.0, 6.0, 40.0]))
@settings(max_examples=12, deadline=None)
def test_lines_and_images_enclose(operator, seed, scale):
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.normal(size=(2, 60)) * scale + rng.normal() * 3, axis=0)
    ends[1, :3] = ends[0, :3]
    node = _node(operator, 60)
    lines, image = relax_smooth(node, *ends), smooth_image(node, *ends)
    share = np.concatenate([np.linspace(0, 1, 999), rng.random(500)])[:, None]
    x = np.clip(ends[0] + (ends[1] - ends[0]) * share, *ends)
    y = ALL[operator](x.astype(np.longdouble)) if operator not in ("Erf", "Gelu") else ALL[operator](x)
    assert (y >= lines.lower_slope * x.astype(np.longdouble) + lines.lower_intercept).all()
    assert (y <= lines.upper_slope * x.astype(np.longdouble) + lines.upper_intercept).all()
    assert (y >= image[0]).all()
    assert (y <= image[1]).all()


@pytest.mark.parametrize("operator", NAMES)
def test_lines_are_tight(operator):
    node = _node(operator, 3)
    lower, upper = np.array([-1.0, 0.5, -2.0]), np.array([1.0, 0.6, 4.0])
    lines, middle = relax_smooth(node, lower, upper), (lower + upper) / 2
    gap = (lines.upper_slope - lines.lower_slope) * middle + lines.upper_intercept - lines.lower_intercept
    low, high = smooth_image(node, lower, upper)
    assert (gap <= 1.01 * (high - low)).all()
    assert gap[1] <= 0.01


def test_infinite_ends_and_odd_attributes():
    ends = np.array([-np.inf, 0.0]), np.array([1.0, np.inf])
    with np.errstate(invalid="ignore"):
        lines, image = relax_smooth(_node("Sin", 2), *ends), smooth_image(_node("Sin", 2), *ends)
    assert np.isnan(lines.lower_intercept).all()
    assert np.isinf(image).all()
    assert not curved(_node("Elu", 2, alpha=0.5))
    assert not curved(Elementwise("s", "x", (2,), "Gelu", {"approximate": "tanh"}, np.tanh))
    assert not curved(Elementwise("s", "x", (2,), "Selu", {}, np.tanh))


@pytest.mark.parametrize("operator", ["Tanh", "Sin", "Silu", "Exp"])
def test_networks_of_smooth_functions(operator):
    rng = np.random.default_rng(1)
    weight = [rng.normal(size=shape) * 0.5 for shape in ((12, 3), (12, 12), (6, 12))]
    nodes = (
        Affine("z1", (Term("x", Dense.of(weight[0])),), rng.normal(size=12) * 0.3),
        Elementwise("s1", "z1", (12,), operator, {}, ALL[operator]),
        Affine("z2", (Term("s1", Dense.of(weight[1])),), rng.normal(size=12) * 0.3),
        Elementwise("s2", "z2", (12,), operator, {}, ALL[operator]),
        Product("p", "s1", "s2", (12,)),
        Affine("z3", (Term("p", Dense.of(weight[2])),), rng.normal(size=6) * 0.3),
        Activate("y", "z3", relu(), (6,)),
    )
    network = Network(Port("x", (3,)), nodes, (Port("y", (6,)),))
    box = Box(-0.2 * np.ones(3), 0.2 * np.ones(3))
    bounds, cheap = linear_bounds(network, box), interval_bounds(network, box)
    values = network.trace(np.concatenate([box.sample(3000, rng), box.corners(8, rng)]))
    lower, upper = bounds.intervals["y"]
    assert (values["z3"] >= lower).all()
    assert (values["z3"] <= upper).all()
    assert (upper - lower).sum() < 0.8 * np.subtract(*cheap.intervals["y"][::-1]).sum()
    few = linear_bounds(network, box, limits=Limits(work=0))
    low, high = value_bounds(network, Bounds(box, {}, "none"), "z3")
    assert (values["z3"] >= low).all()
    assert (values["z3"] <= high).all()
    assert (high - low).sum() < np.subtract(*few.intervals["y"][::-1]).sum() + 1e-9
    low, high = value_bounds(network, bounds, "z2")
    assert (values["z2"] >= low).all()
    assert (values["z2"] <= high).all()
