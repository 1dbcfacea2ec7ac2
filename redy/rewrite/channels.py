"""Channels of convolutional activations that are lines are removed on the ONNX graph, by `redy.simplify`.

A channel that a proof found constant over the box and a channel that pruning zeroed go through the same code: constants
into (maps of) biases, channels dropped from producers and consumers, residual sums handled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from redy.errors import RedyError
from redy.formats.onnx_read import read_network
from redy.formats.onnx_write import to_model
from redy.model import Activate, Array, Finding, Network
from redy.rewrite.dense import Refusal, is_vector
from redy.simplify import ChannelFinding, simplify


def remove_channels(
    network: Network, original: Network, findings: Sequence[Finding], units: Mapping[str, NDArray[np.int64]]
) -> Network | Refusal:
    """The network without the channels that the findings make lines, in the type in which it is written.

    Args:
        network: made from the original; names are those of the findings.
        original: what the findings are about.
        findings: about channels (`redy.rewrite.is_channel`), proved.
        units: activation of an image -> which elements (flattened) of the original stand in it, where some are gone.
    """
    facts: dict[str, ChannelFinding] = {}
    for node in network.activations:
        before = original.by_name.get(node.name)
        if isinstance(before, Activate) and not (is_vector(before.shape) or is_vector(node.shape)):
            lines = _lines(before, findings)
            if node.name in units and units[node.name].size == math.prod(node.shape):
                lines = lines[:, np.unique(units[node.name] // math.prod(before.shape[1:]))]
            if lines.shape[1] == node.shape[0] and np.isfinite(lines).any():
                facts[node.name] = ChannelFinding.lines(lines[0].tolist(), lines[1].tolist())
    if not facts:
        return network
    try:
        small = read_network(simplify(to_model(network), findings=facts, check=False).model)
    except RedyError as error:
        return Refusal(f"channels were not removed: {error}")
    if small.parameters > network.parameters or small.macs > network.macs:
        return Refusal("removing the channels would make the network larger")
    return small


def _lines(node: Activate, findings: Sequence[Finding]) -> Array:
    """(2, channels): slopes and intercepts, NaN where there is no finding."""
    lines = np.full((2, node.shape[0]), np.nan)
    for finding in findings:
        if finding.unit.node == node.name:
            lines[:, finding.unit.index] = finding.line.slope, finding.line.intercept
    return lines
