"""Channels of convolutional activations that are lines are removed on the ONNX graph, by `redy.simplify`.

A channel that a proof found constant over the box and a channel that pruning zeroed go through the same code: constants
into (maps of) biases, channels dropped from producers and consumers, residual sums handled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from redy.errors import RedyError
from redy.formats.onnx_read import read_network
from redy.formats.onnx_write import to_model
from redy.model import Activate, Finding, Network
from redy.rewrite.dense import Refusal, is_vector
from redy.simplify import ChannelFinding, simplify


def remove_channels(network: Network, findings: Sequence[Finding]) -> Network | Refusal:
    """The network without the channels that the findings make lines, in the type in which it is written.

    Args:
        network: its convolutional part is that of the original; names are those of the findings.
        findings: about channels (`redy.rewrite.is_channel`), proved.
    """
    if not findings:
        return network
    facts = {node.name: _facts(node, findings) for node in network.activations if not is_vector(node.shape)}
    try:
        small = read_network(simplify(to_model(network), findings=facts, check=False).model)
    except RedyError as error:
        return Refusal(f"channels were not removed: {error}")
    if small.parameters > network.parameters or small.macs > network.macs:
        return Refusal("removing the channels would make the network larger")
    return small


def _facts(node: Activate, findings: Sequence[Finding]) -> ChannelFinding:
    slope, intercept = np.full(node.shape[0], np.nan), np.full(node.shape[0], np.nan)
    for finding in findings:
        if finding.unit.node == node.name:
            slope[finding.unit.index], intercept[finding.unit.index] = finding.line.slope, finding.line.intercept
    return ChannelFinding.lines(slope.tolist(), intercept.tolist())
