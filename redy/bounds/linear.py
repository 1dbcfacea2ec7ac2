"""Backward linear bounds (CROWN) of pre-activations and of linear forms of any value.

Method: Zhang et al., "Efficient Neural Network Robustness Certification with General Activation Functions" (NeurIPS
2018), Theorem 3.2 and Corollary 3.3; with intermediate concretisation as in DeepPoly (Singh et al., POPL 2019). A
form c.v is pulled back node by node; an activation is replaced by its upper line where its coefficient is positive
and by its lower line where it is negative; what remains is a form of the input, largest at a vertex of the box. The
forms held along the way are also evaluated on the known ranges, and the smallest bound is kept.

Rounding. Along one row the method states real inequalities c.v <= sum_v L_v.v + const with float64 coefficients L.
Pulling L back through an affine node, fl(W^T L) = W^T L + E with |E| <= gamma_n |W|^T |L| (`redy.bounds.rounding`);
the inequality stays true if E.s is added, and |E|.|s| <= gamma_n |L|.(|W| |s|max). So every row carries `size`, the
sum of |L|.t over all its steps, with t = |W| |s|max + |b| computed once per node: the error of the whole row is at
most gamma_N size with N above the products per step plus the number of steps, doubled for the rounding of `size`
itself (Higham, Lemma 3.3). Products with slopes other than 0 and 1, sums where branches meet, and intercepts add
their absolute values to `size` as well. A row in which a non-zero coefficient meets a non-zero value also gets the
underflow term; other rows stay exact, so that a bound that is exactly zero comes out as zero where no rounding takes
place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from redy.bounds.forward import Forward, fits
from redy.bounds.interval import fan_in, intersect, interval_bounds, needed_for, node_range
from redy.bounds.relaxation import Lines, relax, relax_product, winners
from redy.bounds.result import Bounds, Range
from redy.bounds.rounding import LARGE, UNDERFLOW, gamma, up
from redy.bounds.smooth import curved, relax_smooth
from redy.model import (
    Activate,
    Affine,
    Array,
    Box,
    Dense,
    Elementwise,
    Gather,
    Limits,
    MaxPool,
    Network,
    Node,
    Positionwise,
    Product,
    Scale,
)
from redy.model.convolution import Conv
from redy.model.limits import UNLIMITED

WORK = 20_000_000_000
"""Multiply-adds of the backward passes of one call of `linear_bounds` by default, some seconds."""
CHUNK = 1 << 21
"""Numbers in one array of forms (16 MiB): rows are taken in chunks of this size."""

COPYING = (Dense, Gather, Scale, Positionwise, Conv)
"""Operators whose adjoint of a one-hot form only copies weights, without rounding (AveragePool divides)."""


def linear_bounds(
    network: Network,
    box: Box,
    start: Bounds | None = None,
    *,
    leave_unsupported: bool = False,
    limits: Limits | None = None,
) -> Bounds:
    """Linear bounds of every pre-activation, never looser than interval bounds or `start`.

    Where few inputs vary, forward mode (`redy.bounds.forward`) comes first. Elements that cheaper bounds already show
    stuck in one piece are not bounded again. What the limits leave out keeps its cheaper bounds.

    Args:
        network: its input has the box's shape.
        box: the inputs.
        start: sound bounds of the same network on the box (or one that holds it), to begin from.
        leave_unsupported: pre-activations behind a node that cannot be bounded get (-inf, inf) instead of a refusal.
        limits: multiply-adds that backward passes may take (`WORK` by default), and a deadline.

    Raises:
        Unsupported: a pre-activation depends on a node that cannot be bounded; the text names the node.
        ValueError: the box does not have the input's shape.
    """
    wanted = [node.name for node in network.activations]
    relaxed = Relaxation(
        network, box, start, wanted=wanted, leave_unsupported=leave_unsupported, limits=limits or Limits(WORK)
    )
    found = {node.name: relaxed.ranges[node.source] for node in network.activations}
    intervals = {name: (lower.copy(), upper.copy()) for name, (lower, upper) in found.items()}
    bounds = Bounds(box, intervals, "linear", start.trusted if start else ())
    # Rounding may differ in the last bit between the two passes; the intersection is never looser than either.
    return bounds.tighten(interval_bounds(network, box, leave_unsupported=leave_unsupported))


def form_bounds(network: Network, bounds: Bounds, name: str, forms: Array) -> Range:
    """Sound bounds of linear forms of one value over the box of `bounds`, as two arrays (rows,).

    Args:
        network: the network that `bounds` belong to.
        bounds: sound pre-activation bounds.
        name: the value (a node or the input).
        forms: coefficients, (rows, *shape of the value).

    Raises:
        Unsupported: the value depends on a node that cannot be bounded; the text names the node.
    """
    return _known(network, bounds, name).bound(name, forms)


def value_bounds(network: Network, bounds: Bounds, name: str) -> Range:
    """Sound linear bounds of every element of one value (its shape), never looser than interval bounds.

    Raises:
        Unsupported: the value depends on a node that cannot be bounded; the text names the node.
    """
    relaxed = _known(network, bounds, name)
    relaxed.refine_value(name)
    return relaxed.ranges[name]


def _known(network: Network, bounds: Bounds, name: str) -> Relaxation:
    """Pre-activations serve as they are known; what smooth functions and products read is bounded backward."""
    limits = Limits(WORK)
    relaxed = Relaxation(network, bounds.box, bounds, wanted=[name], refine=False, smooth=True, limits=limits)
    relaxed.limits = Limits()
    return relaxed


@dataclass(frozen=True, slots=True, eq=False)
class RowLines:
    """Lines around the ReLUs of one activation, each row of forms its own; all arrays (rows, *shape).

    lower_slope x <= relu(x) <= upper_slope x + upper_intercept on the part of the box the row is about, with slopes in
    [0, 1] and intercepts >= 0; and there shift * x >= 0 (the multiplier of a split x >= 0 or x <= 0).
    """

    lower_slope: Array
    upper_slope: Array
    upper_intercept: Array
    shift: Array


@dataclass
class _Rows:
    """Inequalities form <= sum_v pending_v.v + const, one per row, and what their rounding may amount to."""

    pending: dict[str, Array]
    const: Array
    size: Array
    live: NDArray[np.bool_]
    steps: int = 0


@dataclass
class Relaxation:
    """Ranges of values and lines around activations over one box, and the backward pass through them.

    Attributes:
        network: the network.
        box: the inputs.
        start: bounds to intersect with.
        wanted: the values to relax, with everything that they depend on.
        refine: whether pre-activations are bounded by backward passes (else `start` and intervals serve as they are).
        leave_unsupported: see `linear_bounds`.
        smooth: whether the sources of other nodes than activations are bounded backward although `refine` is not set.
        limits: what backward passes that refine ranges may cost, in multiply-adds and time.
        ranges: the range of every relaxed value.
        lines: the lines around every relaxed `Activate`, smooth function and (by source) `Product`.
    """

    network: Network
    box: Box
    start: Bounds | None
    wanted: Sequence[str]
    refine: bool = True
    leave_unsupported: bool = False
    smooth: bool = False
    limits: Limits = field(default_factory=Limits)
    ranges: dict[str, Range] = field(default_factory=dict, init=False)
    lines: dict[str, tuple[Lines, ...]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.box.shape != self.network.input.shape:
            raise ValueError(f"the box has shape {self.box.shape}, the network takes {self.network.input.shape}")
        keep = needed_for(self.network, self.wanted)
        self._order = [node for node in self.network.nodes if node.name in keep]
        self._width = max([self.box.size, *(math.prod(node.shape) for node in self._order)])
        self._products = max([self._width, *(fan_in(node) for node in self._order if isinstance(node, Affine))])
        self._mass, self._cost = 1.0, 0
        self._left = sum(not isinstance(node, Affine) for node in self._order)
        self._forward = None
        if self.refine and self._order and fits(self._order, self.box):
            self._forward = Forward(self.network.input.name, self.box, self._order)
        self._reach: dict[str, Array] = {}
        self.ranges[self.network.input.name] = (self.box.lower, self.box.upper)
        self._mass += float(magnitude((self.box.lower, self.box.upper)).sum())
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for node in self._order:
                self._extend(node)

    def bound(self, name: str, forms: Array) -> Range:
        """Sound lower and upper bounds of forms (rows, *shape) of a relaxed value, each (rows,)."""
        lower, upper = np.empty(len(forms)), np.empty(len(forms))
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for rows in self._chunks(len(forms)):
                upper[rows] = self._upper(name, forms[rows])
                lower[rows] = -self._upper(name, -forms[rows])
        return lower, upper

    def refine_value(self, name: str, open_: NDArray[np.bool_] | None = None) -> None:
        """Backward bounds for the elements of an affine value where `open_` holds (where its range is a range)."""
        if not isinstance(self.network.by_name.get(name), Affine):
            return
        lower, upper = (end.copy() for end in self.ranges[name])
        places = np.flatnonzero((lower < upper if open_ is None else open_) & np.isfinite(lower) & np.isfinite(upper))
        places = self._affordable(places, lower, upper)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for chunk in self._chunks(places.size):
                if self.limits.remaining() <= 0:
                    break
                rows = places[chunk]
                forms = np.zeros((rows.size, *lower.shape))
                forms.reshape(rows.size, -1)[np.arange(rows.size), rows] = 1.0
                upper.flat[rows] = np.minimum(upper.flat[rows], self._upper(name, forms, one_hot=True))
                lower.flat[rows] = np.maximum(lower.flat[rows], -self._upper(name, -forms, one_hot=True))
        self.ranges[name] = (lower, upper)

    def _affordable(self, places: NDArray[np.int64], lower: Array, upper: Array) -> NDArray[np.int64]:
        """Those elements that a fair share of the work reaches, nearest to a sign of their own first."""
        if self.limits.work >= UNLIMITED or not places.size:
            return places
        count = self.limits.work // max(1, self._left) // max(1, 2 * self._cost)
        if count < places.size:
            low, high = lower.flat[places], upper.flat[places]
            places = np.sort(places[np.argsort(np.minimum(-low, high) / (high - low), kind="stable")[:count]])
        self.limits = self.limits.less(2 * self._cost * places.size)
        return places

    def _chunks(self, count: int) -> Iterator[slice]:
        step = max(1, CHUNK // self._width)
        return (slice(begin, begin + step) for begin in range(0, count, step))

    def _extend(self, node: Node) -> None:
        """Bound one more node; its sources are bounded already."""
        if isinstance(node, Activate):
            if self.start is not None and node.name in self.start.intervals:
                self.ranges[node.source] = intersect(self.ranges[node.source], self.start.intervals[node.name])
            if self.refine:
                self.refine_value(node.source, node.function.stuck(*self.ranges[node.source]) < 0)
            self.lines[node.name] = (relax(node.function, *self.ranges[node.source]),)
            self._left -= 1
        elif (self.refine or self.smooth) and not isinstance(node, Affine):
            for source in node.sources:
                self.refine_value(source)
            self._left -= 1
        if isinstance(node, Product):
            self.lines[node.name] = relax_product(self.ranges[node.left], self.ranges[node.right])
        elif isinstance(node, Elementwise) and curved(node):
            self.lines[node.name] = (relax_smooth(node, *self.ranges[node.source]),)
        found = node_range(node, self.ranges, leave_unsupported=self.leave_unsupported)
        if self._forward is not None:
            found = self._forward.extend(node, found, self.ranges, self.lines.get(node.name, ()))
        self.ranges[node.name] = found
        self._cost += row_cost(node)
        self._mass += float(magnitude(found).sum())
        if isinstance(node, Affine):
            self._reach[node.name] = affine_reach(node, self.ranges)

    def upper(self, name: str, forms: Array, chosen: Mapping[str, RowLines]) -> Array:
        """Upper bounds of forms (rows, *shape) of a relaxed value with lines of each row's own for some activations."""
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            return self._upper(name, forms, chosen=chosen)

    def _upper(
        self,
        name: str,
        forms: Array,
        *,
        one_hot: bool = False,
        chosen: Mapping[str, RowLines] | None = None,
    ) -> Array:
        """Upper bounds of forms (rows, *shape) of a value; `one_hot` says that each has a single entry, +1 or -1."""
        count = len(forms)
        rows = _Rows({name: forms}, np.zeros(count), np.zeros(count), np.zeros(count, dtype=bool))
        best = np.full(count, np.inf)
        for node in reversed(self._order):
            form = rows.pending.pop(node.name, None)
            if form is None:
                continue
            rows.steps += 1
            if isinstance(node, Activate) and chosen is not None and node.name in chosen:
                self._through_own_lines(rows, node, form, chosen[node.name])
            elif isinstance(node, Affine):
                self._through_affine(rows, node, form, exact=one_hot and node.name == name)
                best = np.fmin(best, self._concretise(rows))
            elif node.name in self.lines:
                self._through_lines(rows, node, form)
            elif isinstance(node, MaxPool):
                self._through_pool(rows, node, form)
            else:
                _add_constant(rows, form, *self.ranges[node.name])
        return np.asarray(np.fmin(best, self._concretise(rows)))

    def _concretise(self, rows: _Rows) -> Array:
        """The largest value of each right-hand side on the known ranges, rounding added; infinite where unknown."""
        total = _Rows({}, rows.const.copy(), rows.size.copy(), rows.live.copy(), rows.steps)
        for name, form in rows.pending.items():
            _add_constant(total, form, *self.ranges[name])
        products = 2 * (self._products + 4 * (total.steps + len(rows.pending)) + 32)
        slack = gamma(products) * total.size
        underflow = np.where(total.live, products * (total.steps + 2) * UNDERFLOW * self._mass, 0.0)
        bound = np.where(total.live, up(total.const + slack + underflow), total.const)
        return np.asarray(np.where(np.isnan(bound), np.inf, bound))

    def _through_affine(self, rows: _Rows, node: Affine, form: Array, *, exact: bool) -> None:
        """c.z = sum_i (W_i^T c).x_i + c.b; exact for a one-hot form, whose pull-back only copies weights."""
        flat = form.reshape(len(form), -1)
        rows.const = rows.const + flat @ node.bias.ravel()
        exact = exact and all(
            isinstance(term.operator, Dense | Gather | Scale | Positionwise | Conv) for term in node.terms
        )
        reach = np.abs(node.bias) if exact else self._reach[node.name]
        _add_size(rows, flat, reach, moved=node.bias != 0 if exact else reach > 0)
        for term in node.terms:
            self._add(rows, term.source, term.operator.adjoint(form))

    def _through_lines(self, rows: _Rows, node: Node, form: Array) -> None:
        """An upper line where the coefficient is positive, a lower line where it is negative."""
        positive, negative = np.maximum(form, 0.0), np.minimum(form, 0.0)
        for source, lines in zip(node.sources, self.lines[node.name], strict=True):
            pulled = positive * lines.upper_slope + negative * lines.lower_slope
            rounded = (np.abs(lines.upper_slope) % 1 != 0) | (np.abs(lines.lower_slope) % 1 != 0)
            rounded |= (np.abs(lines.upper_slope) > 1) | (np.abs(lines.lower_slope) > 1)
            reach = np.where(rounded, magnitude(self.ranges[source]), 0.0)
            slope = np.maximum(np.abs(lines.upper_slope), np.abs(lines.lower_slope))
            _add_size(rows, form.reshape(len(form), -1), slope * reach, moved=reach > 0)
            _add_constant(rows, form, lines.lower_intercept, lines.upper_intercept)
            self._add(rows, source, pulled)

    def _through_own_lines(self, rows: _Rows, node: Activate, form: Array, lines: RowLines) -> None:
        """As `_through_lines`, for ReLU lines (slopes in [0, 1]) that differ from row to row."""
        positive, negative = np.maximum(form, 0.0), np.minimum(form, 0.0)
        pulled = positive * lines.upper_slope + negative * lines.lower_slope
        raised = (positive * lines.upper_intercept).reshape(len(form), -1).sum(axis=1)
        rows.const, rows.size = rows.const + raised, rows.size + raised
        reach = magnitude(self.ranges[node.source])
        _add_size(rows, form.reshape(len(form), -1), reach, moved=reach > 0)
        # Rounding is monotone, so the sum moves to the side of the shift: no error is made in the inequality.
        self._add(rows, node.source, pulled + lines.shift)

    def _through_pool(self, rows: _Rows, node: MaxPool, form: Array) -> None:
        """The maximum is at least any element, and is the one whose lower bound tops all others, if there is one."""
        pick, sure, highest = winners(node, *self.ranges[node.source])
        positive, negative = np.maximum(form, 0.0), np.minimum(form, 0.0)
        lost = np.where(pick < 0, np.nan, 0.0)
        _add_constant(rows, form, lost, np.where(sure, lost, highest))
        kept = negative + np.where(sure, positive, 0.0)
        reach = np.append(magnitude(self.ranges[node.source]), 0.0)[pick]
        _add_size(rows, kept.reshape(len(kept), -1), reach, moved=reach > 0)
        self._add(rows, node.source, Gather(pick, self.network.shapes[node.source]).adjoint(kept))

    def _add(self, rows: _Rows, name: str, form: Array) -> None:
        """Add a form to what is pending for a value; where two branches meet the sum is rounded."""
        if name not in rows.pending:
            rows.pending[name] = form
            return
        total = rows.pending[name] + form
        reach = magnitude(self.ranges[name])
        _add_size(rows, total.reshape(len(total), -1), reach, moved=reach > 0)
        rows.pending[name] = total


def row_cost(node: Node) -> int:
    """Multiply-adds, about, of pulling one form back through a node."""
    own = sum(term.operator.macs for term in node.terms) if isinstance(node, Affine) else 0
    return own + 8 * math.prod(node.shape)


def magnitude(found: Range) -> Array:
    """The largest absolute value in each range."""
    return np.maximum(np.abs(found[0]), np.abs(found[1]))


def affine_reach(node: Affine, ranges: Mapping[str, Range]) -> Array:
    """|W| |s|max + |b|, the sum of absolute terms of each element at its largest; 0 only where every term vanishes."""
    reach, live = np.abs(node.bias), node.bias != 0
    for term in node.terms:
        size = magnitude(ranges[term.source])
        spread, signs = term.operator.spread(np.stack([size, np.where(size > 0, LARGE, 0.0)]))
        reach, live = reach + spread, live | (signs > 0)
    return np.where(live, reach + fan_in(node) * UNDERFLOW, 0.0)


def _add_constant(rows: _Rows, form: Array, lower: Array, upper: Array) -> None:
    """Add the largest value of form.v for v in [lower, upper] (arrays of v's shape) to the constants."""
    flat = form.reshape(len(form), -1)
    lower, upper = lower.ravel(), upper.ravel()
    highs = np.maximum(flat, 0.0) @ np.stack([upper, np.abs(upper), (upper != 0).astype(np.float64)], axis=1)
    lows = np.minimum(flat, 0.0) @ np.stack([lower, -np.abs(lower), -(lower != 0).astype(np.float64)], axis=1)
    both = highs + lows
    rows.const = rows.const + both[:, 0]
    rows.size = rows.size + both[:, 1]
    rows.live = rows.live | (both[:, 2] > 0)


def _add_size(rows: _Rows, flat: Array, reach: Array, moved: NDArray[np.bool_]) -> None:
    """Account for the rounding of one step: coefficients (rows, size) times what they multiply at most."""
    both = np.abs(flat) @ np.stack([reach.ravel(), moved.ravel().astype(np.float64)], axis=1)
    rows.size = rows.size + both[:, 0]
    rows.live = rows.live | (both[:, 1] > 0)
