"""All rewrites in order: a network and the findings about it give the smaller network.

Deterministic: the same network and findings give the same network bit for bit, which is how a reduction is replayed.
The result is never larger than the network it was made from, in parameters and in multiply-adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from redy.model import Finding, Network, PiecewiseLinear
from redy.rewrite.constants import propagate_constants
from redy.rewrite.dead import Kept, drop_dead
from redy.rewrite.dense import Refusal, flat_function, is_vector
from redy.rewrite.expose import exposed, exposed_name, opaque, transparent
from redy.rewrite.facts import Facts, restored
from redy.rewrite.findings import apply_findings
from redy.rewrite.fold import Stuck, fold, linear_layers
from redy.rewrite.forms import JOINED
from redy.rewrite.fuse import fuse
from redy.rewrite.merge import Merge, merge_parallel
from redy.rewrite.narrow import narrow
from redy.rewrite.settle import followed, on_box
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
        facts: what was used besides the findings; None for nothing.
    """

    network: Network
    lined: Network
    units: dict[str, NDArray[np.int64]]
    merges: tuple[Merge, ...] = ()
    refusal: str | None = None
    facts: Facts | None = None

    @classmethod
    def unchanged(cls, network: Network, lined: Network, refusal: str) -> Shrunk:
        """The network as it was, with the reason."""
        units = {node.name: np.arange(node.shape[-1]) for node in network.activations if is_vector(node.shape)}
        return cls(network, lined, units, (), refusal)


def shrink(
    network: Network,
    findings: Sequence[Finding],
    facts: Facts | None = None,
    *,
    joined: int = JOINED,
    fewest: Fewest = "latency",
    layout: Callable[[Network], Network | Refusal] | None = None,
) -> Shrunk | Refusal:
    """The smallest form redy has of the network with the findings applied, or why they cannot be applied.

    Args:
        network: any network.
        findings: about units of vectors, proved.
        facts: what else holds on the box; None: nothing is used.
        joined: what it costs to read one more value (`redy.rewrite.forms`): nothing where layers are computed by loops.
        fewest: what the form has least of.
        layout: what brings every form into a layout (`redy.rewrite.chain`), which it has whatever its size; its refusal
            is the answer where no form can have it.
    """
    lined = apply_findings(network, findings)
    if isinstance(lined, Refusal):
        return lined
    lined = exposed(lined)
    settled = [(lined, dict[str, NDArray[np.int64]]())]
    if facts is not None and not facts.nothing:
        settled += [on_box(lined, facts, straight=straight) for straight in (True, False)]
    whole = _Whole(network, findings, facts)
    price = joined if fewest == "latency" else 0
    candidates = [c for start, origin in settled for c in _forms(start, origin, whole, price, fewest)]
    if layout is not None:
        return _laid_out([c.network for c in candidates], lined, fewest, layout)
    fitting = [c for c in candidates if c.network.parameters <= network.parameters and c.network.macs <= network.macs]
    if not fitting:
        return Shrunk.unchanged(network, lined, "every folded form is larger than the network as it is")
    best = min(fitting, key=lambda c: _price(c.network, fewest))
    return replace(best, lined=lined, facts=facts)


def _price(network: Network, fewest: Fewest) -> tuple[int, ...]:
    sizes = network.parameters + network.macs, len(network.nodes)
    return {"latency": sizes, "parameters": (network.parameters, *sizes), "relus": (network.units, *sizes)}[fewest]


def _laid_out(
    forms: Sequence[Network], lined: Network, fewest: Fewest, layout: Callable[[Network], Network | Refusal]
) -> Shrunk | Refusal:
    """The best of the forms in a layout; units that stand in it are found by their values, not by name."""
    laid = [layout(form) for form in forms]
    possible = [network for network in laid if not isinstance(network, Refusal)]
    if not possible:
        return next(refusal for refusal in laid if isinstance(refusal, Refusal))
    return Shrunk(min(possible, key=lambda network: _price(network, fewest)), lined, {}, ())


@dataclass(frozen=True, slots=True, eq=False)
class _Whole:
    """What the forms are made from."""

    network: Network
    findings: Sequence[Finding]
    facts: Facts | None


def _forms(start: Network, origin: Kept, whole: _Whole, joined: int, fewest: Fewest) -> Iterator[Shrunk]:
    """The forms of a network with lines: selections as matrices or as they are, and linear units kept or not."""
    for movers in dict.fromkeys((start, opaque(start))):
        tidy, index, merges = _without_constants(fuse(movers), origin)
        stuck = _stuck(whole, index)
        for keep in (None, linear_layers(tidy), *(() if fewest == "latency" else (frozenset[str](),))):
            small, units = _folded(tidy, index, stuck, keep, joined)
            small = narrow(restored(transparent(small), whole.network, units))
            yield Shrunk(small, start, units, merges)


def _without_constants(network: Network, origin: Kept) -> tuple[Network, Kept, tuple[Merge, ...]]:
    """Constants forward, dead units dropped, parallel units merged; which units stay, and the merges."""
    first, kept = drop_dead(propagate_constants(network))
    kept = followed(origin, kept)
    merged, merges = merge_parallel(first)
    second, again = drop_dead(merged)
    origin = followed(kept, again)
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


def _behind(network: Network, names: set[str]) -> set[str]:
    """The values that depend on one of the named ones, these not included unless they depend on another."""
    behind: set[str] = set()
    for node in network.nodes:
        if any(source in behind or source in names for source in node.sources):
            behind.add(node.name)
    return behind


def _stuck(whole: _Whole, origin: Kept) -> Stuck:
    """The units whose line is the piece of their own function they are stuck in: these may stay as they are.

    Behind a unit that was replaced for another reason than its phase, pre-activations are no longer those for which the
    phase was proved; there every line stays a line.
    """
    network, pieces = whole.network, {} if whole.facts is None else whole.facts.pieces
    last = {finding.unit: finding for finding in whole.findings}
    changed = _behind(network, {unit.node for unit, finding in last.items() if finding.kind != "phase"})
    result: dict[str, tuple[NDArray[np.bool_], PiecewiseLinear]] = {}
    for node in network.activations:
        name = node.name if node.name in origin else exposed_name(node.name)
        if name not in origin or node.name in changed:
            continue
        mask = np.zeros(math.prod(node.shape), dtype=bool)
        if is_vector(node.shape):
            mask[[unit.index for unit, f in last.items() if unit.node == node.name and f.kind == "phase"]] = True
        elif node.name in pieces:
            mask = pieces[node.name] >= 0
        index = origin[name]
        result[name] = (mask[index], flat_function(node).restricted(index))
    return result
