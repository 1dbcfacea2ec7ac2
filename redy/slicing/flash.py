"""A family for a board: the tree whose C99 code is the fastest, by a model of its time, within a number of bytes.

A tree is grown larger than wanted and every leaf searched, as for `--adaptive`; what is proved on both halves of a node
holds on the node, so every node could be one slice, with a network, its bytes and its time. In the folded form a slice
takes its weights, in the shared form a mask beside the original's weights, so that many slices fit but each is slower.
Both are pruned:

- folded: of all subtrees the one with the least sum of volume * time + price * bytes; the price is found by bisection
  (Lagrange; cost-complexity pruning as in Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees",
  1984, chapter 3, with bytes in place of leaves). A constant slice takes no weights.
- shared: all slices take the same bytes, so the number of slices is what fits (`redy.slicing.pruning`).

The faster one is taken. Bytes are those of the tables that the C file holds, counted in the file, and CODE for its
functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from redy.errors import InputError
from redy.model import Network
from redy.slicing.cuts import Cut, GridCut, Nodes, TreeCut, leaves_of, tree_of
from redy.slicing.export_c import BLOCK, c_source
from redy.slicing.family import Family, Form
from redy.slicing.program import Program
from redy.slicing.pruning import joined, leaves_first, pruned, share
from redy.slicing.work import SliceRecord

CODE = 4096
"""Bytes for the functions of a C file; gcc -O2 makes less of them (tests/slicing/test_flash.py)."""
LEAF = 128
"""About what a slice takes in the shared form: a tree is grown to as many leaves as would fit, but"""
FEWEST, MOST = 64, 4096
"""not to fewer and not to more."""
LAYER_TIME, FOLDED_TIME = 15.0, 40.0
"""The time of a layer and of a call in the folded form, in steps of its innermost loop (eight multiply-adds): fitted to
gcc -O2 on x86-64, as is that of the shared form:"""
UNIT_TIME, SHARED_STEP = 1.7, 1.24
"""a unit of the original, alive or not, and a step of its innermost loop."""
NODE = 20
"""Bytes of an inner node: axis, face, children, and the number of the slice."""
PRICES = 50
"""Bisections of the price of a byte."""
ROUNDS = 3
"""How often room that equal networks leave is given to more slices."""
SAME = 1e-12
"""Costs closer than this share are equal: they are sums in different orders."""

Made = Callable[[Cut, list[SliceRecord], Form], Family]

_TABLE = re.compile(r"^static const (\w+) \w+\[(\d+)\]", re.MULTILINE)
_ALIAS = re.compile(r"^typedef (\w+) (redy_real|redy_index);", re.MULTILINE)
_BYTES = {"uint8_t": 1, "uint16_t": 2, "uint32_t": 4, "int32_t": 4, "uint64_t": 8, "float": 4, "double": 8}


@dataclass(frozen=True, slots=True)
class _Code:
    """A cut with its records and form, its time by the model, and the bytes of its C file."""

    cut: TreeCut
    records: list[SliceRecord]
    form: Form
    time: float
    size: int


def flash_leaves(flash: int) -> int:
    """How many leaves the tree is grown to."""
    return min(MOST, max(FEWEST, flash // LEAF))


def flash_size(source: str) -> int:
    """Bytes that the C file of a family takes in read-only memory: its tables, and CODE for its functions."""
    kinds: dict[str, int] = _BYTES | {alias: _BYTES[kind] for kind, alias in _ALIAS.findall(source)}
    kinds["redy_four"] = BLOCK * kinds["redy_real"]
    return CODE + sum(kinds[kind] * int(count) for kind, count in _TABLE.findall(source))


def flash_pruned(
    network: Network, cut: TreeCut, records: list[SliceRecord], flash: int, made: Made
) -> tuple[TreeCut, list[SliceRecord], Form]:
    """The cut, its records and the form that are fastest within the bytes.

    Args:
        network: what was sliced.
        cut: the tree that was searched.
        records: one per leaf.
        flash: bytes.
        made: the family of a cut, its records and a form.

    Raises:
        InputError: no form fits.
    """
    found = [*_folded(network, cut, records, flash, made), *_shared(network, cut, records, flash, made)]
    fits = [code for code in found if code.size <= flash]
    if not fits:
        least = min(code.size for code in found)
        raise InputError(f"--flash {flash}: the smallest code takes {least} bytes; give at least so many")
    best = min(fits, key=lambda code: code.time)
    return best.cut, best.records, best.form


def _shared(network: Network, cut: TreeCut, records: list[SliceRecord], flash: int, made: Made) -> Iterable[_Code]:
    """The shared form, with as many slices as fit."""
    count = len(cut)
    while count >= 1:
        smaller, kept = pruned(network, cut, records, count)
        assert isinstance(smaller, TreeCut)
        family = made(smaller, kept, "shared")
        size = flash_size(c_source(family, "shared"))
        volume = np.array([share(smaller, leaf) for leaf in range(len(smaller))])
        open_ = np.ones(len(smaller), dtype=bool) if family.winner is None else family.winner < 0
        steps = family.shared_macs() * (SHARED_STEP / (2 * BLOCK)) + UNIT_TIME * network.units
        yield _Code(smaller, kept, "shared", float(volume @ (steps * open_)), size)
        if size <= flash:
            return
        each = -(-network.units // 4) + NODE
        count = min(count, len(smaller)) - max(1, (size - flash) // each)


def _folded(network: Network, cut: TreeCut, records: list[SliceRecord], flash: int, made: Made) -> Iterable[_Code]:
    """The folded form, with the best slices that fit; slices with equal networks may leave room for more."""
    tree = _Weighed.of(network, cut, records, made)
    room = flash
    for _ in range(ROUNDS):
        nodes = tree.within(room)
        kept = [replace(tree.records[name], index=k) for k, name in enumerate(leaves_of(nodes))]
        smaller = tree_of(cut.box, nodes)
        size = flash_size(c_source(made(smaller, kept, "folded"), "folded"))
        yield _Code(smaller, kept, "folded", sum(tree.time[name] for name in leaves_of(nodes)), size)
        if nodes == tree.within(room + flash - size):
            return
        room += flash - size


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A tree with what each node would be as one slice: its record, volume times time, and bytes."""

    cut: TreeCut
    records: dict[int, SliceRecord]
    time: dict[int, float]
    size: dict[int, int]

    @classmethod
    def of(cls, network: Network, cut: TreeCut, records: list[SliceRecord], made: Made) -> _Weighed:
        nodes = joined(network, cut, records) if len(cut.axis) else {~0: records[0]}
        alone = [replace(record, index=k) for k, record in enumerate(nodes.values())]
        # Only the networks of this family are asked, so any cut with so many cells will do.
        family = made(_row(cut, len(alone)), alone, "folded")
        programs = {name: family.program(k, "folded") for k, name in enumerate(nodes)}
        volume = {~leaf: share(cut, leaf) for leaf in range(len(cut))}
        for node in leaves_first(cut) if len(cut.axis) else ():
            volume[node] = sum(volume[int(child)] for child in cut.children[node])
        time = {name: volume[name] * _time(program) for name, program in programs.items()}
        return cls(cut, nodes, time, {name: _bytes(program) for name, program in programs.items()})

    def within(self, room: int) -> Nodes:
        """The inner nodes of the fastest subtree whose slices take no more bytes; of the smallest where none does."""
        best = self._at(0.0)
        if self._size(best) <= room:
            return best
        low, high = 0.0, 1.0
        best = self._at(high)
        for _ in range(PRICES):
            price = (low + high) / 2 if low else high / 4
            nodes = self._at(price)
            if self._size(nodes) <= room:
                best, high = nodes, price
            else:
                low = price
        return best

    def _size(self, nodes: Nodes) -> int:
        return sum(self.size[name] for name in leaves_of(nodes)) + NODE * len(nodes) + CODE

    def _at(self, price: float) -> Nodes:
        """The inner nodes of the subtree with the least time + price * bytes."""
        if not len(self.cut.axis):
            return {}
        cost = {name: self.time[name] + price * self.size[name] for name in self.time}
        split = set[int]()
        for node in leaves_first(self.cut):
            halves = sum(cost[int(child)] for child in self.cut.children[node]) + price * NODE
            if halves < cost[node] * (1 - SAME):
                cost[node] = halves
                split.add(node)
        nodes, stack = Nodes(), [0]
        while stack:
            node = stack.pop()
            if node in split:
                one, other = (int(child) for child in self.cut.children[node])
                nodes[node] = (int(self.cut.axis[node]), float(self.cut.face[node]), one, other)
                stack += [one, other]
        return {node: nodes[node] for node in sorted(nodes)}


def _row(cut: TreeCut, cells: int) -> GridCut:
    splits = [1] * cut.box.size
    splits[int(cut.box.width.argmax())] = cells
    return GridCut.of(cut.box, tuple(splits))


def _time(program: Program) -> float:
    """Steps of the innermost loop, with what a layer and a call take besides."""
    if not any(step.sources for step in program.steps):
        return 1.0
    pairs: Iterable[int] = (
        -(-step.bias.size // (2 * BLOCK)) * sum(w.shape[1] for w in step.weights) for step in program.steps
    )
    return FOLDED_TIME + sum(LAYER_TIME + steps for steps in pairs)


def _bytes(program: Program) -> int:
    """Tables of one slice: its numbers, its weights in blocks, the places that its columns read."""
    columns: list[int] = [sum(w.shape[1] for w in step.weights) for step in program.steps]
    blocks: list[int] = [
        -(-step.bias.size // BLOCK) * (1 + count) for step, count in zip(program.steps, columns, strict=True)
    ]
    return 8 + 20 * len(program.steps) + BLOCK * program.dtype.itemsize * sum(blocks) + 2 * sum(columns)
