"""How far pre-activations certainly reach: sign-gradient paths on the condensed form. Nothing is proved."""

from __future__ import annotations

from redy.condensed.ascent import smallest
from redy.condensed.form import Intervals, condense
from redy.condensed.search import LOWER, UPPER, Rows
from redy.errors import Unsupported
from redy.model import Activate, Box, Network, Unit


def reached(network: Network, box: Box, known: Intervals) -> dict[Unit, tuple[float, float]]:
    """The smallest and largest pre-activation that paths of the gradient meet, of every unit unstable on the box.

    Args:
        network: the network.
        box: the inputs.
        known: sound pre-activation bounds.

    Returns:
        Nothing where a node of the network cannot be condensed.
    """
    try:
        condensed = condense(network, box, known).condensed
    except Unsupported:
        return {}
    count = len(condensed.variables)
    ranges: dict[Unit, tuple[float, float]] = {}
    met = smallest(Rows.of(condensed), [(row, side) for side in (LOWER, UPPER) for row in range(count)])
    for variable, low, high in zip(condensed.variables, met[:count], met[count:], strict=True):
        node = network.by_name[variable.node]
        assert isinstance(node, Activate)
        function = node.function.broadcast_to(node.shape)
        shift = float(function.breakpoints[variable.breakpoint].ravel()[variable.element])
        unit = Unit(variable.node, variable.element)
        begin, end = ranges.get(unit, (low + shift, high + shift))
        ranges[unit] = min(begin, low + shift), max(end, high + shift)
    return ranges
