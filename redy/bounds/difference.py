r"""How far two networks are apart on a box: one backward linear pass over the difference, dense or convolutional.

Both networks become one graph over the same input. Nodes that are equal, operator, weights and sources, stand in it
once. Every other node of the second network that is not affine, with source z' and value f(z'), is paired element by
element with a node of the first, with source z and the same f, and is written as

    f(z') = f(z) + c,    c = f(z + d) - f(z),    d = z' - z,

so that what both compute cancels in the coefficients of the backward pass (`redy.bounds.linear`) and only c is relaxed:
between smin d and smax d for the least and the largest slope of f on the values that z and z' take (compare Paulsen,
Wang and Wang, "ReluDiff", ICSE 2020, section IV). Where both stay in one piece of f, c = slope d. Any pairing is sound;
a good one is tight. An element without a partner is relaxed alone. The bounds of d are linear bounds as well, as far as
the work reaches, and intervals behind it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from redy.bounds.elementwise import elementwise_image
from redy.bounds.interval import intersect
from redy.bounds.linear import Relaxation
from redy.bounds.relaxation import Lines, image, relax
from redy.bounds.result import Bounds, Range
from redy.bounds.rounding import down, up
from redy.errors import InputError, Unsupported
from redy.model import (
    Activate,
    Affine,
    Array,
    Box,
    Elementwise,
    Gather,
    Limits,
    MaxPool,
    Network,
    Node,
    PiecewiseLinear,
    Scale,
)
from redy.model.carried import Foreign
from redy.model.compose import redirected
from redy.model.digest import content_digest
from redy.model.network import Port, Term
from redy.model.operators import identity

WORK = 20_000_000_000
"""Multiply-adds that the bounds of d may take: some ten seconds."""
_POINTS = 16
_NEAREST = 1 << 27
"""Numbers compared, at most, where the partners of one node are looked for."""
_SLOPES: dict[str, tuple[float, float]] = {
    "Asinh": (0.0, 1.0),
    "Atan": (0.0, 1.0),
    "Cos": (-1.0, 1.0),
    "Erf": (0.0, 1.1284),
    "Gelu": (-0.1291, 1.1291),
    "HardSwish": (-0.5, 1.5),
    "Mish": (-0.1134, 1.0886),
    "Sigmoid": (0.0, 0.25),
    "Silu": (-0.0999, 1.0999),
    "Sin": (-1.0, 1.0),
    "Softplus": (0.0, 1.0),
    "Softsign": (0.0, 1.0),
    "Tanh": (0.0, 1.0),
}
"""Operator -> an interval that holds its derivative everywhere, where its attributes are the usual ones."""
_LIPSCHITZ = {"LogSoftmax": 2.0, "ReduceMax": 1.0, "ReduceMean": 1.0, "Softmax": 0.5}
"""Operator carried as it is -> by how much an output moves, at most, when no input moves by more than 1."""
_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}

Curve = Activate | Elementwise | MaxPool | Foreign
"""Nodes of one source whose change is bounded by the change of that."""

Partners = Mapping[str, Mapping[str, NDArray[np.int64]]]
"""Node of the second network -> node of the first -> per element of the second the element of the first, or -1."""


def difference_bounds(
    first: Network,
    second: Network,
    box: Box,
    known: Mapping[str, Range],
    partners: Partners | None = None,
    *,
    limits: Limits | None = None,
) -> Range:
    """Sound bounds of y'_o - y_o on the box, all outputs flattened, one after the other, as two arrays (outputs,).

    An end is infinite where a node on the way cannot be bounded. Both are exactly zero where the networks are equal.

    Args:
        first: usually the original.
        second: usually the smaller one; same inputs and outputs.
        box: the inputs.
        known: sound pre-activation bounds of the first network, by `Activate` name; may be empty.
        partners: see `find_partners`, which is the default.
        limits: multiply-adds that bounds of hidden differences may take (`WORK` by default), and those of the outputs
            again; and the deadline. What they leave out keeps its interval bounds.

    Raises:
        InputError: inputs or outputs differ in number or shape.
    """
    if partners is None:
        points = box.sample(_POINTS, np.random.default_rng(0))
        partners = find_partners(first, second, points)
    joint = _Joint(first, second, partners)
    limits = limits or Limits(WORK)
    relaxed = _Relaxation(joint.network, box, Bounds(box, dict(known), "known"), joint.outputs, limits)
    ends: list[Range] = []
    for name in joint.outputs:
        if relaxed.affords(name, limits.work):
            relaxed.refine_value(name)
        ends.append(relaxed.ranges[name])
    return np.concatenate([low.ravel() for low, _ in ends]), np.concatenate([high.ravel() for _, high in ends])


def find_partners(first: Network, second: Network, points: Array) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Partners whose sources are nearest on points (m, *input shape), those of the same name and place first."""
    with np.errstate(all="ignore"):
        ours = first.trace(points)
        theirs = second.trace(points.reshape(len(points), *second.input.shape))
    found: dict[str, dict[str, NDArray[np.int64]]] = {}
    for node in second.nodes:
        if not _paired_kind(node):
            continue
        wanted = theirs[node.sources[0]]
        alike = [other for other in first.nodes if type(other) is type(node)]
        named = [other for other in alike if other.name in {node.name, node.name.removesuffix("_units")}]
        for other in named or alike:
            if len(other.sources) != 1:
                continue
            index = _near(ours[other.sources[0]], wanted, whole=not isinstance(node, Activate | Elementwise))
            free = np.all([part < 0 for part in found.get(node.name, {}).values()], axis=0)
            index = np.where(free, index, -1) if node.name in found else index
            if (index >= 0).any():
                found.setdefault(node.name, {})[other.name] = index
    return found


def _near(ours: Array, theirs: Array, *, whole: bool) -> NDArray[np.int64]:
    """Per element of `theirs` (m, *shape) the element of `ours` (m, *shape) that is nearest in the largest difference.

    An element that is not nearer than half its own size has none. `whole`: only in the same place of the same shape.
    """
    m, size = len(theirs), math.prod(theirs.shape[1:])
    flat, other = theirs.reshape(m, size), ours.reshape(m, -1)
    if flat.shape == other.shape:
        index = np.arange(size)
    elif whole:
        return np.full(size, -1)
    elif theirs.ndim > 2 and ours.shape[2:] == theirs.shape[2:]:
        channels = _nearest(_by_channel(ours), _by_channel(theirs))
        index = (channels[:, None] * (other.shape[1] // ours.shape[1]) + np.arange(size // theirs.shape[1])).ravel()
    elif size * other.size <= _NEAREST:
        index = _nearest(other, flat)
    else:
        return np.full(size, -1)
    if whole:
        return np.asarray(index)
    apart = np.abs(flat - other[:, index]).max(axis=0, initial=0.0)
    return np.where(apart <= 0.5 * np.abs(flat).max(axis=0, initial=0.0), index, -1)


def _by_channel(values: Array) -> Array:
    return np.moveaxis(values.reshape(*values.shape[:2], -1), 1, 2).reshape(-1, values.shape[1])


def _nearest(ours: Array, theirs: Array) -> NDArray[np.int64]:
    """Per column of `theirs` (m, k) the nearest column of `ours` (m, l)."""
    if not ours.shape[1]:
        return np.zeros(theirs.shape[1], dtype=np.int64)
    places = [np.abs(ours - theirs[:, [k]]).max(axis=0, initial=0.0).argmin() for k in range(theirs.shape[1])]
    return np.array(places, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """c = f(base + source) - f(base) for the function f of `node`, and f(source) where an element is not `paired`.

    `source` depends on `base`, which is 0 where there is no partner; `moved` is their sum.
    """

    name: str
    source: str
    base: str
    moved: str
    node: Curve
    paired: NDArray[np.bool_]
    shape: tuple[int, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    def evaluate(self, values: Mapping[str, Array]) -> Array:
        after, before = (
            self.node.evaluate({**values, source_of(self.node): values[name]}) for name in (self.moved, self.base)
        )
        return after - np.where(self.paired, before, 0.0)


@dataclass
class _Joint:
    """Both networks as one graph, whose outputs are the differences."""

    first: Network
    second: Network
    partners: Partners
    nodes: list[Node] = field(default_factory=list, init=False)
    names: dict[str, str] = field(default_factory=dict, init=False)
    outputs: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        first, second = self.first, self.second
        sizes = [[math.prod(port.shape) for port in network.outputs] for network in (first, second)]
        if first.input.shape != second.input.shape or sizes[0] != sizes[1]:
            raise InputError(
                f"the networks cannot be compared: inputs {first.input.shape} and {second.input.shape}, "
                f"outputs of sizes {sizes[0]} and {sizes[1]}"
            )
        self.nodes.extend(first.nodes)
        self.shapes = dict(first.shapes)
        self.names[second.input.name] = first.input.name
        ours = {_content(node, node.sources): node.name for node in first.nodes if _repeatable(node)}
        for node in second.nodes:
            content = _content(node, tuple(self.names[source] for source in node.sources))
            if _repeatable(node) and content in ours:
                self.names[node.name] = ours[content]
            elif _paired_kind(node):
                self.names[node.name] = self._paired(node)
            else:
                self.names[node.name] = self._add(redirected(node, self.names), "second")
        self.outputs = [self._apart(a, b) for a, b in zip(first.outputs, second.outputs, strict=True)]
        ports = tuple(Port(name, self.shapes[name]) for name in self.outputs)
        self.network = Network(first.input, tuple(self.nodes), ports)

    def _add(self, node: Node, what: str) -> str:
        """Add a node under a name of its own; returns the name."""
        name = f"{node.name}:{what}"
        while name in self.shapes:
            name += "'"
        self.nodes.append(replace(node, name=name))
        self.shapes[name] = node.shape
        return name

    def _apart(self, ours: Port, theirs: Port) -> str:
        """The node that is the difference of two outputs, in the shape of the first network's."""
        name, shape = self.names[theirs.name], ours.shape
        if name == ours.name:
            return self._add(Affine(ours.name, (), np.zeros(shape)), "apart")
        arranged = identity(shape) if shape == theirs.shape else Gather(_order(shape), theirs.shape)
        terms = (Term(name, arranged), Term(ours.name, Scale(np.full(shape, -1.0))))
        return self._add(Affine(ours.name, terms, np.zeros(shape)), "apart")

    def _paired(self, node: Curve) -> str:
        """f(z') as f(z) + c."""
        size, moved = math.prod(node.shape), self.names[source_of(node)]
        shape = self.second.shapes[source_of(node)]
        paired = np.zeros(size, dtype=bool)
        before: list[Term] = []
        after: list[Term] = []
        for name, index in self._alike(node).items():
            other = self.first.by_name[name]
            source = other.sources[0]
            before.append(Term(source, Gather(index.reshape(shape), self.shapes[source])))
            value = index if isinstance(node, Activate | Elementwise) else np.arange(size)
            after.append(Term(name, Gather(value.reshape(node.shape), other.shape)))
            paired |= value >= 0
        if not after and not isinstance(node, Activate | Elementwise):
            return self._add(redirected(node, self.names), "second")
        base = self._add(Affine(node.name, tuple(before), np.zeros(shape)), "base")
        difference = (Term(moved, identity(shape)), Term(base, Scale(np.full(shape, -1.0))))
        moves = self._add(Affine(node.name, difference, np.zeros(shape)), "moves")
        change = self._add(
            cast(Node, _Change(node.name, moves, base, moved, node, paired.reshape(node.shape), node.shape)), "change"
        )
        after.append(Term(change, identity(node.shape)))
        return self._add(Affine(node.name, tuple(after), np.zeros(node.shape)), "second")

    def _alike(self, node: Curve) -> dict[str, NDArray[np.int64]]:
        """The partners that compute the same function."""
        found: dict[str, NDArray[np.int64]] = {}
        for name, index in self.partners.get(node.name, {}).items():
            other = self.first.by_name[name]
            if isinstance(node, Activate) and isinstance(other, Activate):
                same = _same_function(node, other, index)
            elif isinstance(node, Elementwise) and isinstance(other, Elementwise):
                alike = (node.operator, dict(node.attributes)) == (other.operator, dict(other.attributes))
                same = np.full(len(index), alike)
            else:
                same = np.full(len(index), _content(node, ()) == _content(other, ()))
            if same.any():
                found[name] = np.where(same, index, -1)
        return found


def _same_function(node: Activate, other: Activate, index: NDArray[np.int64]) -> NDArray[np.bool_]:
    ours, theirs = node.function.broadcast_to(node.shape), other.function.broadcast_to(other.shape)
    if ours.pieces != theirs.pieces:
        return np.zeros(len(index), dtype=bool)
    pairs = (
        (ours.breakpoints, theirs.breakpoints),
        (ours.slopes, theirs.slopes),
        (ours.value[None], theirs.value[None]),
    )
    same = [(a.reshape(len(a), -1) == b.reshape(len(b), -1)[:, index]).all(axis=0) for a, b in pairs]
    return np.asarray(np.all(same, axis=0))


def _order(shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.arange(math.prod(shape)).reshape(shape)


def source_of(node: Curve) -> str:
    """The one value that it reads."""
    return node.sources[0]


def _paired_kind(node: Node) -> TypeGuard[Curve]:
    if isinstance(node, Foreign):
        return len(node.sources) == 1 and node.operator in _LIPSCHITZ
    return isinstance(node, Activate | Elementwise | MaxPool)


def _repeatable(node: Node) -> bool:
    """Whether the node computes the same for the same inputs wherever it stands: a standard, not a random operator."""
    return not isinstance(node, Foreign) or not (":" in node.operator or node.operator in _RANDOM)


def _content(node: Node, sources: tuple[str, ...]) -> tuple[object, ...]:
    """Equal for nodes that compute the same from the same sources."""
    return (content_digest(node), sources, node.shape)


@dataclass
class _Relaxation(Relaxation):
    """The backward pass over the joint graph; see the module."""

    def __init__(self, network: Network, box: Box, start: Bounds, wanted: list[str], limits: Limits) -> None:
        self.work = limits.work
        only_time = Limits(deadline=limits.deadline)
        super().__init__(network, box, start, wanted, refine=False, leave_unsupported=True, limits=only_time)

    def affords(self, name: str, work: int) -> bool:
        """Whether so much work bounds all elements of a value that are not fixed."""
        low, high = self.ranges[name]
        return int((low < high).sum()) * self._cost <= work

    def _extend(self, node: Node) -> None:
        if not isinstance(cast(object, node), _Change):
            super()._extend(node)
            return
        change = cast(_Change, node)
        with np.errstate(invalid="ignore"):
            self._narrow(change)
            low, high = self._between(change)
        self.ranges[change.name] = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
        self._mass += float(np.maximum(np.abs(low), np.abs(high)).sum())

    def _narrow(self, change: _Change) -> None:
        """Linear bounds of d, as far as the work reaches, and with them of z'."""
        base, moved = self.ranges[change.base], self.ranges[change.moved]
        open_ = np.ones(base[0].shape, dtype=bool)
        if isinstance(change.node, Activate):
            before, after = (change.node.function.stuck(*found) for found in (base, moved))
            open_ = (before < 0) | (before != after)
        cost = int(open_.sum()) * self._cost
        if cost <= self.work:
            self.work -= cost
            self.refine_value(change.source, open_)
        low, high = self.ranges[change.source]
        self.ranges[change.moved] = intersect(moved, (down(base[0] + low), up(base[1] + high)))

    def _between(self, change: _Change) -> Range:
        """Bounds of c, and its lines in d where it has some."""
        low, high = self.ranges[change.source]
        if isinstance(change.node, MaxPool):
            return _windows(change.node, low).min(axis=-1), _windows(change.node, high).max(axis=-1)
        if isinstance(change.node, Foreign):
            largest = np.maximum(np.abs(low), np.abs(high)).max(initial=0.0) * _LIPSCHITZ[change.node.operator]
            reach = np.full(change.shape, float(up(np.array(largest))))
            return -reach, reach
        if isinstance(change.node, Elementwise) and (change.node.operator == "Cast" or not change.paired.all()):
            return self._alone(change)
        slopes = self._slopes(change)
        if slopes is None:
            return np.full(change.shape, -np.inf), np.full(change.shape, np.inf)
        least, most = slopes
        zero = np.zeros((1, *change.shape))
        below = PiecewiseLinear(zero, np.stack([most, least]), zero[0])
        above = PiecewiseLinear(zero, np.stack([least, most]), zero[0])
        under, over = relax(below, low, high), relax(above, low, high)
        parts = [under.lower_slope, under.lower_intercept, over.upper_slope, over.upper_intercept]
        ends = [image(below, low, high)[0], image(above, low, high)[1]]
        if isinstance(change.node, Activate) and not change.paired.all():
            alone = relax(change.node.function, low, high)
            single = (alone.lower_slope, alone.lower_intercept, alone.upper_slope, alone.upper_intercept)
            parts = [np.where(change.paired, a, b) for a, b in zip(parts, single, strict=True)]
            ends = [
                np.where(change.paired, a, b) for a, b in zip(ends, image(change.node.function, low, high), strict=True)
            ]
        self.lines[change.name] = (Lines(*parts),)
        return ends[0], ends[1]

    def _alone(self, change: _Change) -> Range:
        """Of a function some of whose elements have no partner, or that jumps: ranges, without lines."""
        assert isinstance(change.node, Elementwise)
        lower, upper = self.ranges[change.moved]
        try:
            after = elementwise_image(change.node, lower, upper)
            before = elementwise_image(change.node, *self.ranges[change.base])
        except Unsupported:
            return np.full(change.shape, -np.inf), np.full(change.shape, np.inf)
        least, most = down(after[0] - before[1]), up(after[1] - before[0])
        return np.where(change.paired, least, after[0]), np.where(change.paired, most, after[1])

    def _slopes(self, change: _Change) -> Range | None:
        """The least and the largest slope of f on what z and z' take; None where they are not known."""
        node = change.node
        if isinstance(node, Elementwise):
            usual = node.attributes.get("alpha", 1.0) == 1.0
            if node.operator not in _SLOPES or not usual:
                return None
            least, most = _SLOPES[node.operator]
            return np.full(node.shape, least), np.full(node.shape, most)
        assert isinstance(node, Activate)
        function = node.function.broadcast_to(node.shape)
        base, moved = self.ranges[change.base], self.ranges[change.moved]
        lower, upper = np.minimum(base[0], moved[0]), np.maximum(base[1], moved[1])
        ends = np.full((1, *node.shape), np.inf)
        left, right = np.concatenate([-ends, function.breakpoints]), np.concatenate([function.breakpoints, ends])
        # A piece counts if it meets the values in more than an end; where they are one point, any that holds it.
        met = (left < upper) & (right > lower) | (lower == upper) & (left <= lower) & (right >= upper)
        slopes = function.slopes
        return np.where(met, slopes, np.inf).min(axis=0), np.where(met, slopes, -np.inf).max(axis=0)


def _windows(node: MaxPool, values: Array) -> Array:
    """Values of each window; padding, which is the same in both networks, does not move."""
    return np.append(values.ravel(), 0.0)[node.index]
