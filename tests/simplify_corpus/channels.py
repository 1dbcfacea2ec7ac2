"""What is known about the channels of a tensor by construction, and what an ideal removal costs.

The corpus knows which filters it pruned, so it can say - without analysing any graph - which
channels are constant and which ones an ideal tool keeps. This is the yardstick that a simplifier
is measured against, so it shares no code with one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LIVE = float("nan")
"""Marks a channel that depends on the input."""
VARYING = float("inf")
"""Marks a constant that differs from place to place, as zero padding makes it at borders."""


@dataclass(eq=False)
class Channels:
    """Channels of one tensor: `value` is the constant of each (LIVE, VARYING or a number).

    All VARYING channels together are combinations of at most `rank` maps: 2 behind a Pad (its
    inside and its border), 9 behind a zero-padded 3x3 convolution.
    """

    value: Values
    rank: int = 0
    kept: Mask = field(init=False)

    def __post_init__(self) -> None:
        self.value = np.asarray(self.value, dtype=np.float64)
        self.kept = np.zeros(len(self.value), dtype=bool)

    @property
    def live(self) -> Mask:
        """Channels that depend on the input."""
        return np.isnan(self.value)

    @property
    def constant(self) -> Mask:
        """Channels that do not depend on the input and are not zero."""
        return ~self.live & (self.value != 0)


@dataclass
class Tape:
    """Backward rules in graph order, and what each layer multiplies once they have run."""

    rules: list[Callable[[bool], None]] = field(default_factory=list)
    costs: list[Callable[[], int]] = field(default_factory=list)
    channels: list[Channels] = field(default_factory=list)
    outputs: list[Channels] = field(default_factory=list)

    def track(self, channels: Channels) -> Channels:
        """Remember `channels` so that a new count starts from nothing kept."""
        self.channels.append(channels)
        return channels

    def multiply_adds(self, *, carriers: bool) -> int:
        """Multiply-adds after an ideal removal without scatter.

        Tensors that are added keep the union of their live channels. With `carriers`, a
        zero-padded convolution that reads constants may keep the channels that carry them: one
        for constants, each one for constants that vary in space.
        """
        for channels in self.channels:
            channels.kept[:] = False
        for channels in self.outputs:
            channels.kept[:] = True
        for rule in reversed(self.rules):
            rule(carriers)
        return sum(cost() for cost in self.costs)


def linear_rule(
    source: Channels,
    result: Channels,
    *,
    groups: int = 1,
    padded: bool = False,
    spatial: bool = False,
    blind: Mask | None = None,
) -> Callable[[bool], None]:
    """Backward rule of a (grouped) linear layer: a kept output needs the live inputs of its group.

    `blind` marks inputs whose weights are all zero: nobody needs them. Only `spatial` results
    need carriers; elsewhere a constant is a bias.
    """

    def rule(carriers: bool) -> None:
        needs = source.live if blind is None else source.live & ~blind
        wanted = result.kept.reshape(groups, -1).any(axis=1)
        reads = np.repeat(wanted, len(source.value) // groups)
        source.kept |= reads & needs
        if carriers and spatial:
            carry = source.constant if groups > 1 and padded else carrying(source, padded)
            source.kept |= reads & carry

    return rule


def carrying(source: Channels, padded: bool) -> Mask:
    """Channels that a simplifier may keep to carry constants past zero padding."""
    varying = np.flatnonzero(np.isposinf(source.value) & ~source.kept)
    mask = np.zeros(len(source.value), dtype=bool)
    mask[varying[: source.rank or None]] = True
    flat = np.flatnonzero(source.constant & np.isfinite(source.value))
    if padded and len(flat) and not (mask | source.kept)[flat].any():
        mask[flat[0]] = True
    return mask


def linear_cost(source: Channels, result: Channels, *, groups: int, each: int) -> Callable[[], int]:
    """Multiply-adds of a linear layer with `each` products per pair of channels.

    ONNX wants groups of one size, so each group counts as the largest one.
    """

    def cost() -> int:
        outs = result.kept.reshape(groups, -1).sum(axis=1)
        ins = source.kept.reshape(groups, -1).sum(axis=1)
        busy = (outs > 0) & (ins > 0)
        if not busy.any():
            return 0
        return int(busy.sum() * outs[busy].max() * ins[busy].max()) * each

    return cost
