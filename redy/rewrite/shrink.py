"""All rewrites in order: a network and the findings about it give the smaller network.

Deterministic: the same network and findings give the same network bit for bit, which is how a reduction is replayed.
The result is never larger than the network it was made from, in parameters and in multiply-adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from redy.model import Activate, Affine, Finding, Network, Node, PiecewiseLinear, Term, identity
from redy.rewrite.constants import propagate_constants
from redy.rewrite.dead import Kept, drop_dead
from redy.rewrite.dense import Refusal, flat_function, is_vector, lines_of, rebuilt
from redy.rewrite.findings import apply_findings
from redy.rewrite.fold import Stuck, fold, linear_layers
from redy.rewrite.forms import JOINED
from redy.rewrite.fuse import fuse
from redy.rewrite.merge import Merge, merge_parallel
from redy.rewrite.structure import name_structure

Fewest = Literal["latency", "parameters", "relus"]
"""What the chosen form has least of; "latency": stored numbers and multiply-adds, with a price for joining values."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What the rewrites made.

    Attributes:
        network: the smaller network, in float64.
        lined: the original with the findings' lines in place; `network` computes what it does.
        units: for every activation that is left, which units of the original stand in it, in order. Activations of the
            original that are missing here have no unit left.
        merges: units that went into a parallel one, in indices of the original.
        refusal: why `network` is the original, where it is.
    """

    network: Network
    lined: Network
    units: dict[str, NDArray[np.int64]]
    merges: tuple[Merge, ...] = ()
    refusal: str | None = None

    @classmethod
    def unchanged(cls, network: Network, lined: Network, refusal: str) -> Shrunk:
        """The network as it was, with the reason."""
        units = {node.name: np.arange(node.shape[-1]) for node in network.activations if is_vector(node.shape)}
        return cls(network, lined, units, (), refusal)


def shrink(
    network: Network,
    findings: Sequence[Finding],
    *,
    joined: int = JOINED,
    fewest: Fewest = "latency",
    layout: Callable[[Network], Network | Refusal] | None = None,
) -> Shrunk | Refusal:
    """The smallest form redy has of the network with the findings applied, or why they cannot be applied.

    Args:
        network: the original.
        findings: about its units.
        joined: what it costs to read one more value (`redy.rewrite.forms`): nothing where layers are computed by loops.
        fewest: what the form has least of.
        layout: what brings every form into a layout (`redy.rewrite.chain`), which it has whatever its size; its refusal
            is the answer where no form can have it.
    """
    lined = apply_findings(network, findings)
    if isinstance(lined, Refusal):
        return lined
    lined = _exposed(lined)
    tidy, origin, merges = _without_constants(fuse(lined))
    stuck = _stuck(network, findings, origin)
    choices = (None, linear_layers(tidy)) if fewest == "latency" else (None, linear_layers(tidy), frozenset[str]())
    candidates = [_folded(tidy, origin, stuck, keep, joined if fewest == "latency" else 0) for keep in choices]
    if layout is not None:
        return _laid_out([small for small, _ in candidates], lined, merges, fewest, layout)
    fitting = [c for c in candidates if c[0].parameters <= network.parameters and c[0].macs <= network.macs]
    if not fitting:
        return Shrunk.unchanged(network, lined, "every folded form is larger than the network as it is")
    small, units = min(fitting, key=lambda c: _price(c[0], fewest))
    return Shrunk(small, lined, units, merges)


def _price(network: Network, fewest: Fewest) -> tuple[int, ...]:
    sizes = network.parameters + network.macs, len(network.nodes)
    return {"latency": sizes, "parameters": (network.parameters, *sizes), "relus": (network.units, *sizes)}[fewest]


def _laid_out(
    forms: Sequence[Network],
    lined: Network,
    merges: tuple[Merge, ...],
    fewest: Fewest,
    layout: Callable[[Network], Network | Refusal],
) -> Shrunk | Refusal:
    """The best of the forms in a layout; units that stand in it are found by their values, not by name."""
    laid = [layout(form) for form in forms]
    possible = [network for network in laid if not isinstance(network, Refusal)]
    if not possible:
        return next(refusal for refusal in laid if isinstance(refusal, Refusal))
    return Shrunk(min(possible, key=lambda network: _price(network, fewest)), lined, {}, merges)


def _without_constants(network: Network) -> tuple[Network, Kept, tuple[Merge, ...]]:
    """Constants forward, dead units dropped, parallel units merged; which units stay, and the merges."""
    first, kept = drop_dead(propagate_constants(network))
    merged, merges = merge_parallel(first)
    second, again = drop_dead(merged)
    origin = {name: kept[name][index] for name, index in again.items()}
    original = tuple((name, int(kept[name][j]), int(kept[name][i]), c) for name, j, i, c in merges)
    return second, origin, original


def _folded(
    network: Network, origin: Kept, stuck: Stuck, keep: frozenset[str] | None, joined: int
) -> tuple[Network, Kept]:
    small, kept = fold(network, stuck, keep, joined)
    units = {node.name: origin[node.name] for node in network.activations}
    units = {name: index[kept[name]] if name in kept else index for name, index in units.items()}
    small = name_structure(small)
    left = {node.name for node in small.activations}
    return small, {name: index for name, index in units.items() if name in left}


def _exposed(network: Network) -> Network:
    """An output that is an activation with lines becomes an affine selection of its units, which can then be folded."""
    for port in network.outputs:
        node = network.by_name.get(port.name)
        if not isinstance(node, Activate) or not is_vector(node.shape) or not lines_of(flat_function(node))[0].any():
            continue
        inner = exposed_name(node.name)
        nodes: list[Node] = []
        for other in network.nodes:
            if other is node:
                nodes.append(Activate(inner, node.source, node.function, node.shape))
                nodes.append(Affine(node.name, (Term(inner, identity(node.shape)),), np.zeros(node.shape)))
            else:
                nodes.append(other)
        network = rebuilt(network, nodes)
    return network


def exposed_name(name: str) -> str:
    """The name of the activation behind an output that was an activation."""
    return f"{name}_units"


def _behind(network: Network, names: set[str]) -> set[str]:
    """The values that depend on one of the named ones, these not included unless they depend on another."""
    behind: set[str] = set()
    for node in network.nodes:
        if any(source in behind or source in names for source in node.sources):
            behind.add(node.name)
    return behind


def _stuck(network: Network, findings: Sequence[Finding], origin: Kept) -> Stuck:
    """The units whose line is the piece of their own function they are stuck in: these may stay as they are.

    Behind a unit that was replaced for another reason than its phase, pre-activations are no longer those for which the
    phase was proved; there every line stays a line.
    """
    last = {finding.unit: finding for finding in findings}
    changed = _behind(network, {unit.node for unit, finding in last.items() if finding.kind != "phase"})
    result: dict[str, tuple[NDArray[np.bool_], PiecewiseLinear]] = {}
    for node in network.activations:
        name = node.name if node.name in origin else exposed_name(node.name)
        if not is_vector(node.shape) or name not in origin or node.name in changed:
            continue
        mask = np.zeros(node.shape[-1], dtype=bool)
        mask[[unit.index for unit, f in last.items() if unit.node == node.name and f.kind == "phase"]] = True
        index = origin[name]
        result[name] = (mask[index], flat_function(node).restricted(index))
    return result
