"""Pruning a searched tree: of all subtrees with at most N leaves the one whose proved mean cost is least.

What is proved on both halves of a node holds on the node, so every inner node has a mask too, and a cost: its volume
times the multiply-adds of the shared form with that mask. With f_v(k) the least cost of the part under node v in
exactly k slices,

    f_v(1) = cost of v as one slice,    f_v(k) = min_{0<i<k} f_below(i) + f_above(k - i),

which a dynamic program finds for all nodes and k. (Minimal cost-complexity pruning, Breiman, Friedman, Olshen and
Stone, "Classification and Regression Trees", 1984, chapter 3, finds this optimum for some k only.) Of the k up to N
the smallest with the least cost is taken, so neighbours that share a network are joined whatever N is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from redy.model import Array, Network
from redy.slicing.cost import SharedCost
from redy.slicing.cuts import Cut, Index, Nodes, TreeCut, leaves_of, tree_of
from redy.slicing.lines import dropped, read_lines
from redy.slicing.masks import KEPT, Codes, pack, unpack
from redy.slicing.work import SliceRecord

SAME = 1e-12
"""Costs closer than this share of the cost without any cut are equal: they are sums in different orders."""


def pruned(
    network: Network, cut: Cut, records: list[SliceRecord], slices: int | None = None
) -> tuple[Cut, list[SliceRecord]]:
    """The cheapest cut with at most `slices` cells (default: as many as there are) that joins neighbours of a tree.

    Args:
        network: what was sliced.
        cut: a grid stays as it is.
        records: one per cell, in order.
        slices: how many are wanted, >= 1.
    """
    if not isinstance(cut, TreeCut) or not len(cut.axis):
        return cut, records
    found = joined(network, cut, records)
    nodes = _best(cut, _costs(network, cut, found), len(cut) if slices is None else slices)
    kept = [replace(found[name], index=k) for k, name in enumerate(leaves_of(nodes))]
    return tree_of(cut.box, nodes), kept


def joined(network: Network, cut: TreeCut, records: list[SliceRecord]) -> dict[int, SliceRecord]:
    """A record for every node of the tree, as if it were one slice; leaves are named ~index."""
    found = {~record.index: record for record in records}
    codes = {~record.index: _codes(network, record) for record in records}
    for node in leaves_first(cut):
        below, above = (int(child) for child in cut.children[node])
        codes[node] = np.where(codes[below] == codes[above], codes[below], KEPT).astype(np.uint8)
        one, other = found[below], found[above]
        alike = one.lines == other.lines and bool((codes[below] == codes[above]).all())
        found[node] = replace(
            one,
            mask=pack(codes[node]),
            stuck=int((codes[node] != KEPT).sum()),
            undecided=max(one.undecided, other.undecided),
            complete=one.complete and other.complete,
            boxes=one.boxes + other.boxes,
            seconds=one.seconds + other.seconds,
            winner=one.winner if one.winner == other.winner else -1,
            # Lines were proved together with the mask, and neither a part of them nor another mask was.
            relaxed=one.relaxed if alike else 0,
            lines=one.lines if alike else b"",
        )
    return found


def _codes(network: Network, record: SliceRecord) -> Codes:
    codes: Codes = unpack(np.frombuffer(record.mask, dtype=np.uint8)[None], network.units)[0]
    return codes


def _costs(network: Network, cut: TreeCut, records: dict[int, SliceRecord]) -> dict[int, float]:
    """Per node its share of the box's volume times its multiply-adds; none where the decision is constant."""
    volume = {~leaf: share(cut, leaf) for leaf in range(len(cut))}
    for node in leaves_first(cut):
        volume[node] = sum(volume[int(child)] for child in cut.children[node])
    alive = np.stack([dropped(_codes(network, r), read_lines(r.lines)) for r in records.values()]) != 0
    each = SharedCost(network).of_units(alive)
    open_ = np.array([record.winner < 0 for record in records.values()])
    return {name: volume[name] * float(cost) for name, cost in zip(records, each * open_, strict=True)}


def share(cut: TreeCut, leaf: int) -> float:
    """The share of the box's volume that a leaf has; sides without width do not count."""
    whole, part = cut.box.width.ravel(), cut.cell(leaf).width.ravel()
    return float(np.prod(part[whole > 0] / whole[whole > 0]))


def _best(cut: TreeCut, cost: dict[int, float], slices: int) -> Nodes:
    """The inner nodes of the best subtree."""
    least = {~leaf: np.array([cost[~leaf]]) for leaf in range(len(cut))}
    below: dict[int, Index] = {}
    for node in leaves_first(cut):
        first, second = (least[int(child)] for child in cut.children[node])
        least[node], below[node] = _sums(first, second, slices)
        least[node][0] = cost[node]
    close = least[0] <= least[0].min() + SAME * cost[0]
    nodes, stack = Nodes(), [(0, int(np.flatnonzero(close)[0]) + 1)]
    while stack:
        node, count = stack.pop()
        if count > 1:
            one, other = (int(child) for child in cut.children[node])
            nodes[node] = (int(cut.axis[node]), float(cut.face[node]), one, other)
            part = int(below[node][count - 1])
            stack += [(one, part), (other, count - part)]
    return {node: nodes[node] for node in sorted(nodes)}


def _sums(first: Array, second: Array, most: int) -> tuple[Array, Index]:
    """For k = 1..most slices in all the least first(i) + second(k - i), and that i; infinite for one slice."""
    size = min(most, first.size + second.size)
    least, part = np.full(size, np.inf), np.zeros(size, dtype=np.int64)
    for i in range(min(first.size, size - 1)):
        room = min(second.size, size - 1 - i)
        sums, place = first[i] + second[:room], slice(i + 1, i + 1 + room)
        part[place] = np.where(sums < least[place], i + 1, part[place])
        least[place] = np.minimum(sums, least[place])
    return least, part


def leaves_first(cut: TreeCut) -> list[int]:
    """Inner nodes, children before parents."""
    order, stack = list[int](), [0]
    while stack:
        node = stack.pop()
        order.append(node)
        stack += [int(child) for child in cut.children[node] if child >= 0]
    return order[::-1]
