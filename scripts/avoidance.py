"""A collision-avoidance task: which turn keeps two aircraft apart at the least cost.

The state is the intruder's distance, bearing and relative heading and both speeds, each scaled to [-1, 1]. Every
advisory is one turn rate; its cost is what the two aircraft, flown for 40 seconds, lack of the wanted separation, plus
a price of the turn itself. The cheapest advisory is given.
"""

from __future__ import annotations

import numpy as np
from training import Array

ADVISORIES = {"clear of conflict": 0.0, "weak left": 1.5, "weak right": -1.5, "strong left": 3.0, "strong right": -3.0}
"""Advisory -> turn rate of the own aircraft in degrees a second, left positive."""

DOMAIN = {
    "distance (m)": (200.0, 8_000.0),
    "bearing (rad)": (-np.pi, np.pi),
    "relative heading (rad)": (-np.pi, np.pi),
    "own speed (m/s)": (60.0, 200.0),
    "intruder's speed (m/s)": (0.0, 200.0),
}
"""Input -> the values that -1 and 1 stand for."""

WANTED_SEPARATION, HORIZON, STEP = 1_500.0, 40.0, 2.0


def domain_samples(count: int, seed: int) -> tuple[Array, Array]:
    """Uniform states (count, 5) and the cost of each advisory in them (count, 5)."""
    states = np.random.default_rng(seed).random((count, 5)) * 2 - 1
    low, high = np.array(list(DOMAIN.values())).T
    costs = advisory_costs(low + (states + 1) / 2 * (high - low))
    return states, costs


def advisory_costs(states: Array) -> Array:
    """For states (n, 5) in their units: the cost of every advisory, about 0 to 3."""
    distance, bearing, heading, own_speed, intruder_speed = states.T
    columns = []
    for rate in np.radians(list(ADVISORIES.values())):
        own_x, own_y = np.zeros_like(distance), np.zeros_like(distance)
        other_x, other_y = distance * np.cos(bearing), distance * np.sin(bearing)
        nearest = np.hypot(other_x, other_y)
        for time in np.arange(STEP, HORIZON + STEP, STEP):
            own_x = own_x + own_speed * np.cos(rate * time) * STEP
            own_y = own_y + own_speed * np.sin(rate * time) * STEP
            other_x = other_x + intruder_speed * np.cos(heading) * STEP
            other_y = other_y + intruder_speed * np.sin(heading) * STEP
            nearest = np.minimum(nearest, np.hypot(other_x - own_x, other_y - own_y))
        missing = np.maximum(1 - nearest / WANTED_SEPARATION, 0)
        columns.append(3 * missing + 0.15 * abs(rate) / np.radians(3.0))
    # Rounded, so that a last digit in which libraries of cosines differ does not reach the training.
    return np.round(np.stack(columns, axis=1) * 2.0**20) / 2.0**20
