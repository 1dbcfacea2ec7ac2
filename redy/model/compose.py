"""Exact composition of linear operators: the cheap fusions that change no number.

Only compositions that move or relabel weights are made; a product of weights would round and is declined (None).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from redy.model.box import Array
from redy.model.carried import Foreign, Product
from redy.model.network import Activate, Affine, Node, Term
from redy.model.operators import Dense, Gather, Operator, Scale


def is_identity(operator: Operator) -> bool:
    """True if the operator gives its input back in the same shape."""
    if isinstance(operator, Scale):
        return operator.is_identity
    return is_reshape(operator) and operator.in_shape == operator.out_shape


def is_reshape(operator: Operator) -> bool:
    """True if the operator gives its input's elements in their order, in any shape."""
    if isinstance(operator, Scale):
        return operator.is_identity
    if not isinstance(operator, Gather) or operator.index.size != math.prod(operator.in_shape):
        return False
    return np.array_equal(operator.index.ravel(), np.arange(operator.index.size))


def compose(outer: Operator, inner: Operator) -> Operator | None:
    """The operator outer(inner(x)), or None where that is not both exact and no larger."""
    if is_identity(outer):
        return inner
    if is_identity(inner):
        return outer
    if isinstance(outer, Gather) and isinstance(inner, Gather):
        chained = np.append(inner.index.ravel(), -1)[outer.index]
        return Gather(chained, inner.in_shape)
    if isinstance(outer, Gather) and isinstance(inner, Dense):
        if outer.index.size > inner.weight.shape[0]:
            return None
        rows = np.vstack([inner.weight, np.zeros((1, inner.weight.shape[1]))])[outer.index.ravel()]
        return Dense(rows, inner.in_shape, outer.out_shape)
    if isinstance(outer, Dense) and isinstance(inner, Gather):
        return _columns_of(outer, inner)
    return None


def _columns_of(outer: Dense, inner: Gather) -> Dense | None:
    """The dense operator on the gathered source, where every element of that is used exactly once."""
    index = inner.index.ravel()
    used = index >= 0
    size = math.prod(inner.in_shape)
    if not np.array_equal(np.sort(index[used]), np.arange(size)):
        return None
    weight = np.empty((outer.weight.shape[0], size))
    weight[:, index[used]] = outer.weight[:, used]
    return Dense(weight, inner.in_shape, outer.out_shape)


def exact_sum(left: Array, right: Array) -> Array | None:
    """left + right if no element rounds, else None (two-sum: the rounding error is computed and must be 0)."""
    total = left + right
    back = total - left
    error = (left - (total - back)) + (right - back)
    return total if not error.any() else None


def inline(nodes: Iterable[Node], keep: set[str]) -> tuple[Node, ...]:
    """Affine nodes absorbed by the affine nodes that read them, wherever that is exact and copies no weights.

    A node is absorbed if all its readers can absorb it and it has one reader or only moves elements; nodes named in
    `keep` (outputs) stay.
    """
    order = list(nodes)
    current = {node.name: node for node in order}
    for node in order:
        if not isinstance(node, Affine) or node.name in keep:
            continue
        absorbed = current[node.name]
        if not isinstance(absorbed, Affine):
            continue
        readers = [other for other in current.values() if node.name in other.sources]
        moves = all(isinstance(t.operator, Gather) or is_identity(t.operator) for t in absorbed.terms)
        if not readers or (len(readers) > 1 and not moves) or not absorbed.terms:
            continue
        merged = [_absorb(reader, absorbed) if isinstance(reader, Affine) else None for reader in readers]
        if all(reader is not None for reader in merged):
            current.update({reader.name: reader for reader in merged if reader is not None})
            del current[node.name]
    return tuple(current[node.name] for node in order if node.name in current)


def _absorb(reader: Affine, absorbed: Affine) -> Affine | None:
    """`reader` with the terms of `absorbed` in place of its own terms on it, or None."""
    terms: list[Term] = []
    bias = reader.bias
    uses = sum(term.source == absorbed.name for term in reader.terms)
    if uses > 1 and not all(isinstance(t.operator, Gather) for t in absorbed.terms):
        return None
    for term in reader.terms:
        if term.source != absorbed.name:
            terms.append(term)
            continue
        if absorbed.bias.any():
            if not (isinstance(term.operator, Gather) or is_identity(term.operator)):
                return None
            total = exact_sum(bias, term.operator.apply(absorbed.bias[None])[0])
            if total is None:
                return None
            bias = total
        for inner in absorbed.terms:
            operator = compose(term.operator, inner.operator)
            if operator is None:
                return None
            terms.append(Term(inner.source, operator))
    return Affine(reader.name, tuple(terms), bias)


def elide_identities(nodes: Iterable[Node], keep: set[str]) -> tuple[Node, ...]:
    """Nodes that give one value back unchanged are dropped and their readers read that value; `keep` stays."""
    alias: dict[str, str] = {}
    result: list[Node] = []
    for node in nodes:
        renamed = redirected(node, alias)
        if (
            isinstance(renamed, Affine)
            and renamed.name not in keep
            and len(renamed.terms) == 1
            and is_identity(renamed.terms[0].operator)
            and not renamed.bias.any()
        ):
            alias[renamed.name] = renamed.terms[0].source
        else:
            result.append(renamed)
    return tuple(result)


def redirected(node: Node, alias: Mapping[str, str]) -> Node:
    """The node with its sources renamed."""
    if not any(source in alias for source in node.sources):
        return node
    if isinstance(node, Affine):
        terms = tuple(Term(alias.get(term.source, term.source), term.operator) for term in node.terms)
        return Affine(node.name, terms, node.bias)
    if isinstance(node, Product):
        return replace(node, left=alias.get(node.left, node.left), right=alias.get(node.right, node.right))
    if isinstance(node, Foreign):
        return replace(node, inputs=tuple(alias.get(source, source) for source in node.inputs))
    return replace(node, source=alias.get(node.source, node.source))


def activations_first(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes with every activation right behind its source, in the order of the sources; else as they were."""
    nodes = tuple(nodes)
    names = {node.name for node in nodes}
    waiting: dict[str, list[Node]] = {}
    for node in nodes:
        if isinstance(node, Activate) and node.source in names:
            waiting.setdefault(node.source, []).append(node)
    order: list[Node] = []

    def place(node: Node) -> None:
        order.append(node)
        for reader in waiting.get(node.name, []):
            place(reader)

    for node in nodes:
        if not (isinstance(node, Activate) and node.source in names):
            place(node)
    return tuple(order)


__all__ = [
    "activations_first",
    "compose",
    "elide_identities",
    "exact_sum",
    "inline",
    "is_identity",
    "is_reshape",
    "redirected",
]
