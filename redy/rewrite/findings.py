"""A unit's activation becomes the line that a finding proved for it.

    y_j = f(z_j)   becomes   y_j = a z_j + b

The line is written as a piecewise-linear function whose pieces all have slope a, with its breakpoints at 0 so that the
intercept b is kept exactly; the later rewrites recognise such a unit as linear (a != 0) or constant (a = 0).
"""

from __future__ import annotations

from collections.abc import Sequence

from redy.model import Activate, Finding, Network, Node, PiecewiseLinear, Proved
from redy.rewrite.dense import Refusal, flat_function, is_vector, rebuilt


def is_channel(network: Network, finding: Finding) -> bool:
    """True if the finding is about a channel of an image, not a neuron of a dense layer."""
    node = network.by_name.get(finding.unit.node)
    return isinstance(node, Activate) and not is_vector(node.shape)


def apply_findings(network: Network, findings: Sequence[Finding]) -> Network | Refusal:
    """The network with the line of every finding in place of its unit's activation.

    Refused, with the reason, when a finding is not proved or names a unit that the network does not have as a neuron.
    A later finding for the same unit replaces an earlier one.
    """
    by_node: dict[str, dict[int, Finding]] = {}
    for finding in findings:
        unit, node = finding.unit, network.by_name.get(finding.unit.node)
        if not isinstance(finding.verdict, Proved):
            return Refusal(f"{unit.node}[{unit.index}]: {finding.kind} redundancy is not proved")
        if not isinstance(node, Activate):
            return Refusal(f"{unit.node}: the network has no activation of this name")
        if not is_vector(node.shape):
            return Refusal(f"{unit.node}: is convolutional; its channels are removed on the ONNX graph")
        if not 0 <= unit.index < node.shape[-1]:
            return Refusal(f"{unit.node}[{unit.index}]: the activation has {node.shape[-1]} units")
        by_node.setdefault(unit.node, {})[unit.index] = finding
    nodes: list[Node] = [
        _with_lines(node, by_node[node.name]) if isinstance(node, Activate) and node.name in by_node else node
        for node in network.nodes
    ]
    return rebuilt(network, nodes)


def _with_lines(node: Activate, found: dict[int, Finding]) -> Activate:
    function = flat_function(node)
    breakpoints, slopes, value = function.breakpoints.copy(), function.slopes.copy(), function.value.copy()
    for index, finding in found.items():
        breakpoints[:, index], slopes[:, index], value[index] = 0.0, finding.line.slope, finding.line.intercept
    pieces = function.pieces
    replaced = PiecewiseLinear(
        breakpoints.reshape(pieces - 1, *node.shape), slopes.reshape(pieces, *node.shape), value.reshape(node.shape)
    )
    return Activate(node.name, node.source, replaced, node.shape)
