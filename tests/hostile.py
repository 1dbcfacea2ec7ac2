"""Tiny networks in which rounding or a solver's tolerance hides that a unit is not stuck.

Each gives, for some units, points of the box at which the unit lies strictly inside different pieces in exact rational
arithmetic. So no sound engine may call such a unit stuck, whatever float64 evaluation or a solver says.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from exact import dense_network, exact_trace, piece_of

from redy.model import Activate, Array, Box, Network, Unit
from redy.model.functions import absolute, clip, leaky_relu, relu


@dataclass(frozen=True)
class Hostile:
    """A network, a box, and inputs (exact rationals) between which they show every piece of the units named."""

    name: str
    network: Network
    box: Box
    units: tuple[Unit, ...]
    points: tuple[tuple[Fraction, ...], ...]

    def phases(self) -> dict[Unit, frozenset[int]]:
        """The pieces that each unit really visits at the points, in exact arithmetic."""
        found: dict[Unit, set[int]] = {unit: set() for unit in self.units}
        for point in self.points:
            values = exact_trace(self.network, point)
            for unit in self.units:
                node = self.network.by_name[unit.node]
                assert isinstance(node, Activate)
                piece = piece_of(node.function, unit.index, node.shape, values[node.source][unit.index])
                if piece is not None:
                    found[unit].add(piece)
        return {unit: frozenset(pieces) for unit, pieces in found.items()}


def _case(name, layers, units, lower=(-1.0,), upper=(1.0,), points=((-1,), (1,)), function=None):
    network = dense_network(layers, function or relu(), last_active=True)
    exact = tuple(tuple(Fraction(v) for v in point) for point in points)
    return Hostile(name, network, Box(np.array(lower), np.array(upper)), tuple(Unit(*u) for u in units), exact)


def _absorption(power: int) -> Hostile:
    """z2 = (x + 2^p) - 2^p = x, but x is lost when it is added to 2^p in float64."""
    huge = 2.0**power
    first = (np.array([[1.0], [0.0]]), np.array([huge, huge]))
    return _case(f"absorption at 2^{power}", [first, (np.array([[1.0, -1.0]]), 0.0), (1.0, 0.0)], [("y2", 0)])


def _rounded_sum() -> Hostile:
    """1000 weights of fl(0.1), a little above 1/10, against one of -100: what remains is 5.6e-15 x."""
    excess = float(1000 * Fraction(0.1) - 100)
    weight = np.full((1, 1001), 0.1)
    weight[0, -1] = -100.0
    first = (np.ones((1001, 1)), np.full(1001, 2.0))
    return _case("rounded sum", [first, (weight, -2 * excess), (1.0, 0.0)], [("y2", 0)])


def _difference_of_large() -> Hostile:
    """min(1e9 x, 1) - 1/2 as a difference of two ReLUs with a range of 1e9."""
    first = (np.array([[1e9], [1e9]]), np.array([0.0, -1.0]))
    return _case("difference of large", [first, (np.array([[1.0, -1.0]]), -0.5)], [("y2", 0)])


def _telescope(layers: int, power: int) -> Hostile:
    """Many layers shrink by 2^-p each, one layer grows it all back."""
    shrink = [(2.0**-power, 0.0)] * layers
    return _case(
        f"telescope {layers} x 2^-{power}", [*shrink, (2.0 ** (layers * power), -0.5)], [(f"y{layers + 1}", 0)]
    )


def _small_coefficient(power: int) -> Hostile:
    """A weight of 2^-p, which solvers drop as too small, grown back where two other inputs must be at their ends."""
    first = (np.diag([2.0**-power, 1.0, -1.0]), np.array([0.0, 1.0, 1.0]))
    return _in_a_corner(f"weight of 2^-{power} grown back", first, power)


def _sliver_in_a_corner(power: int) -> Hostile:
    """A sliver 2^-p wide of one input, grown back where two other inputs must be at their ends."""
    first = (np.diag([1.0, 1.0, -1.0]), np.array([2.0**-power - 1, 1.0, 1.0]))
    return _in_a_corner(f"sliver of 2^-{power} in a corner", first, power)


def _in_a_corner(name: str, first: tuple[Array, Array], power: int) -> Hostile:
    """z2 = 2^(p-4) y_1 + y_2 + y_3 - 4 - 2^-5 is 2^-5 in one corner of the box and below 0 wherever y_1 vanishes."""
    second = (np.array([[2.0 ** (power - 4), 1.0, 1.0]]), -4 - 2.0**-5)
    points = ((-1, -1, 1), (1, 1, -1))
    return _case(name, [first, second, (1.0, 0.0)], [("y2", 0)], (-1.0,) * 3, (1.0,) * 3, points)


HOSTILE: list[Hostile] = [
    _case(
        "sliver of 2^-24 behind a weight of 2^20", [(1.0, 2.0**-24 - 1), (2.0**20, -(2.0**-5))], [("y1", 0), ("y2", 0)]
    ),
    _case("1e-14 then 1e14", [(1e-14, 0.0), (1e14, -0.5)], [("y1", 0), ("y2", 0)]),
    _case("pre-activation at most 9.5e-7", [(1.0, 2.0**-20 - 1), (2.0**20, -0.5)], [("y1", 0), ("y2", 0)]),
    _absorption(54),
    _absorption(60),
    _rounded_sum(),
    _small_coefficient(30),
    _small_coefficient(44),
    _sliver_in_a_corner(24),
    _sliver_in_a_corner(36),
    _difference_of_large(),
    _telescope(12, 8),
    _telescope(40, 20),
    _case("subnormal weight", [(5e-324, 0.0)], [("y1", 0)]),
    _case(
        "product underflows",
        [(1e-200, 0.0), (1e-200, 0.0), (1e300, 0.0), (1e300, -1.0)],
        [("y1", 0), ("y4", 0)],
    ),
    _case("overflow", [(1e200, 0.0), (1e200, -1.0)], [("y1", 0), ("y2", 0)]),
    _case(
        "one ulp of box",
        [(1.0, -1.0), (2.0**53, -1.0)],
        [("y2", 0)],
        lower=(1.0,),
        upper=(1.0 + 2.0**-52,),
        points=((1,), (1 + Fraction(1, 2**52),)),
    ),
    _case(
        "negative by one bit",
        [(np.array([[1.0, 1.0]]), -(2.0**-80))],
        [("y1", 0)],
        lower=(-1.0, 1.0),
        upper=(-1.0 + 2.0**-52, 1.0),
        points=((-1, 1), (-1 + Fraction(1, 2**52), 1)),
    ),
    _case("clip of 1e-12", [(1.0, 0.0), (1e12, -0.5)], [("y1", 0), ("y2", 0)], function=clip(0.0, 1e-12)),
    _case("leaky slope 1e-12", [(1.0, 0.0), (-1e12, -0.5)], [("y1", 0), ("y2", 0)], function=leaky_relu(1e-12)),
    _case(
        "absolute of 1e-13",
        [(1e-13, 0.0), (1e13, -0.5)],
        [("y1", 0), ("y2", 0)],
        points=((-1,), (0.01,), (1,)),
        function=absolute(),
    ),
]
