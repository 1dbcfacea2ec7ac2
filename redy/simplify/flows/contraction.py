"""Products of two computed tensors, as attention has them: y[out] = sum over the other letters of a[left] b[right].

MatMul and Einsum of two operands are written with one letter per axis. With labels on letters (heads, rows of a head)
- a letter keeps the same labels in every operand that has it: a head goes from scores and values at once;
- row k of one operand is not needed where row k of the other is zero;
- y is zero where every product of its sum is, and where the weights of the sum add up to one (a Softmax over the summed
  axis) and b holds the constant c at all its rows, y is c.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.facts import Facts, Mask
from redy.simplify.flow import Flow
from redy.simplify.graph import Graph, data, dims, get_int, get_string, is_standard


class Contraction(Flow):
    """`letters`: those of the two operands and of the result, one per axis."""

    def __init__(self, left: Sequence[str], right: Sequence[str], out: Sequence[str]) -> None:
        self.letters = (tuple(left), tuple(right))
        self.out = tuple(out)

    def _operands(self, node: ir.Node) -> list[ir.Value]:
        values = [node.inputs[0], node.inputs[1]]
        return [value for value in values if value is not None]

    # --- layout --------------------------------------------------------------------------------------------------

    def layout(self, node: ir.Node, a: Analysis) -> None:
        operands = self._operands(node)
        sizes: dict[str, int] = {}
        for value, letters in zip(operands, self.letters, strict=True):
            for letter, n in zip(letters, a.atoms[value].shape, strict=True):
                sizes[letter] = max(sizes.get(letter, 1), n)
        if not all(self._fits(value, letters, sizes, a) for value, letters in zip(operands, self.letters, strict=True)):
            for value in operands:
                a.pin(value)
        y = node.outputs[0]
        shape = [sizes[letter] for letter in self.out]
        if max(shape, default=1) == 1:
            a.opaque(y)
        else:
            a.atoms[y] = a.new_atoms(int(np.prod(shape))).reshape(shape)
        self._tie_rows(operands, a)

    def _fits(self, value: ir.Value, letters: Sequence[str], sizes: dict[str, int], a: Analysis) -> bool:
        """Whether the operand has labels wherever the other has, or is broadcast there."""
        shape = dims(value) or ()
        return all(
            n == sizes[letter] or d == 1 for letter, n, d in zip(letters, a.atoms[value].shape, shape, strict=True)
        )

    def _tie_rows(self, operands: list[ir.Value], a: Analysis) -> None:
        """Equal labels of the operands where both have the same letters: rows of queries and of keys."""
        left, right = operands
        order = [self.letters[1].index(letter) for letter in self.letters[0] if letter in self.letters[1]]
        missing = [axis for axis, letter in enumerate(self.letters[1]) if letter not in self.letters[0]]
        kept = [axis for axis, letter in enumerate(self.letters[0]) if letter in self.letters[1]]
        one, other = a.atoms[left], a.atoms[right]
        if any(other.shape[axis] > 1 for axis in missing):
            return
        if any(n > 1 for axis, n in enumerate(one.shape) if axis not in kept):
            return
        one = one.reshape([one.shape[axis] for axis in kept])
        other = other.transpose([*order, *missing]).reshape([other.shape[axis] for axis in order])
        if one.shape == other.shape:
            a.tie(one, other)

    # --- facts and needs -----------------------------------------------------------------------------------------

    def _zero(self, value: ir.Value, a: Analysis) -> Mask:
        return a.facts[value].zero()

    def forward(self, node: ir.Node, a: Analysis) -> None:
        left, right = self._operands(node)
        y = node.outputs[0]
        facts = [a.facts[left], a.facts[right]]
        shape = a.atoms[y].shape
        if any(f.known.shape != a.atoms[v].shape for f, v in zip(facts, (left, right), strict=True)):
            return
        nonzero = [~f.zero() for f in facts]
        zero = ~np.broadcast_to(_meet(nonzero[0], self.letters[0], nonzero[1], self.letters[1], self.out), shape)
        table = np.zeros(shape)
        known = np.array(zero)
        averaged = self._average(node, a)
        if averaged is not None:
            table = np.where(zero, 0.0, averaged.values())
            known |= averaged.known
        a.facts[y] = Facts.of(known, np.where(known, table, 0.0), Facts.nothing(shape).axes)

    def _average(self, node: ir.Node, a: Analysis) -> Facts | None:
        """The right operand's constants, in the axes of y, where the left operand's rows add up to one."""
        left, right = self._operands(node)
        summed = [letter for letter in self.letters[0] if letter not in self.out]
        if len(summed) != 1 or summed[0] not in self.letters[1] or not self._adds_up_to_one(left, summed[0], a.graph):
            return None
        facts = a.facts[right]
        axis = self.letters[1].index(summed[0])
        if not facts.uniform or facts.known.shape[axis] != 1:
            return None
        known = _in_letters(facts.known, self.letters[1], self.out)
        shape = a.atoms[node.outputs[0]].shape
        table = np.broadcast_to(_in_letters(facts.values(), self.letters[1], self.out), shape)
        return Facts(np.broadcast_to(known, shape), table, Facts.nothing(shape).axes)

    def _adds_up_to_one(self, left: ir.Value, letter: str, graph: Graph) -> bool:
        """Whether the left operand is a Softmax over this axis, perhaps behind nodes that change nothing."""
        producer = left.producer()
        while producer is not None and is_standard(producer) and producer.op_type in ("Identity", "Dropout"):
            producer = data(producer).producer()
        if producer is None or not is_standard(producer) or producer.op_type != "Softmax":
            return False
        rank = len(self.letters[0])
        axis = get_int(producer, "axis", 1 if graph.opset < 13 else -1) % rank
        return axis == self.letters[0].index(letter) and (graph.opset >= 13 or axis == rank - 1)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        operands = self._operands(node)
        y = node.outputs[0]
        need = a.needs[y] & ~a.absorbed(y)
        if not need.any():
            return
        for k in (0, 1):
            value, other = operands[k], operands[1 - k]
            there = _meet(need, self.out, ~self._zero(other, a), self.letters[1 - k], self.letters[k])
            a.demand(value, there & ~self._zero(value, a), strict=True)

    # --- what stays ----------------------------------------------------------------------------------------------

    def close(self, node: ir.Node, a: Analysis) -> None:
        y = node.outputs[0]
        if not a.alive[a.atoms[y]].any():
            return
        members = [*zip(self._operands(node), self.letters, strict=True), (y, self.out)]
        for letter in dict.fromkeys([*self.letters[0], *self.letters[1]]):
            having = [(v, letters.index(letter)) for v, letters in members if letter in letters]
            having = [(v, axis) for v, axis in having if a.atoms[v].shape[axis] > 1]
            lives = [a.live(v, axis) for v, axis in having]
            for (value, axis), live in zip(having, lives, strict=True):
                lacking = np.logical_or.reduce(lives) & ~live
                if lacking.any():
                    revive_along(value, axis, lacking, a)


def revive_along(value: ir.Value, axis: int, lacking: Mask, a: Analysis) -> None:
    """Revive labels along one axis, for those labels of the other axes that stay (the first where none does)."""
    atoms = a.atoms[value]
    wanted = np.broadcast_to(lacking.reshape([-1 if i == axis else 1 for i in range(atoms.ndim)]), atoms.shape)
    for other, n in enumerate(atoms.shape):
        if other == axis or n == 1:
            continue
        live = a.live(value, other)
        live = live if live.any() else np.arange(n) == 0
        wanted = wanted & live.reshape([-1 if i == other else 1 for i in range(atoms.ndim)])
    a.revive(atoms[wanted])


def _meet(one: Mask, letters: Sequence[str], other: Mask, others: Sequence[str], out: Sequence[str]) -> Mask:
    """Whether, per entry of `out`, any entry of the rest has both True; axes of size 1 are broadcast."""
    sizes: dict[str, int] = {}
    for mask, names in ((one, letters), (other, others)):
        for letter, n in zip(names, mask.shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), n)
    full = [np.broadcast_to(m, [sizes[c] for c in names]) for m, names in ((one, letters), (other, others))]
    spec = f"{''.join(letters)},{''.join(others)}->{''.join(c for c in out if c in sizes)}"
    found = np.einsum(spec, full[0].astype(np.float32), full[1].astype(np.float32)) > 0
    return np.asarray(found).reshape([sizes.get(c, 1) for c in out])


def _in_letters(array: np.ndarray, letters: Sequence[str], out: Sequence[str]) -> np.ndarray:
    """The array with the axes of `out`; letters that it lacks have size 1, those that `out` lacks must have."""
    kept = [i for i, letter in enumerate(letters) if letter in out]
    array = array.reshape([array.shape[i] for i in kept])
    names = [letters[i] for i in kept]
    order = sorted(range(len(names)), key=lambda i: out.index(names[i]))
    array = array.transpose(order)
    sizes = dict(zip([names[i] for i in order], array.shape, strict=True))
    return array.reshape([sizes.get(letter, 1) for letter in out])


def computed_product(node: ir.Node) -> Flow | str:
    """The rule of a MatMul without constant operands."""
    left, right = dims(node.inputs[0]) or (), dims(node.inputs[1]) or ()
    if len(left) < 2 or len(right) < 2:
        return "one of its operands is a vector"
    batch = string.ascii_lowercase[: max(len(left), len(right)) - 2]
    return Contraction(
        [*batch[len(batch) - len(left) + 2 :], "I", "K"],
        [*batch[len(batch) - len(right) + 2 :], "K", "J"],
        [*batch, "I", "J"],
    )


def _einsum(node: ir.Node, graph: Graph) -> Flow | str:
    equation = get_string(node, "equation", "").replace(" ", "")
    operands, arrow, out = equation.partition("->")
    parts = operands.split(",")
    if not arrow or len(parts) != 2 or "." in equation or any(len(set(p)) != len(p) for p in (*parts, out)):
        return "its equation is not followed"
    if any(graph.is_constant(value) for value in node.inputs):
        return "one of its operands is a constant"
    return Contraction(parts[0], parts[1], out)


RULES = {"Einsum": _einsum}
