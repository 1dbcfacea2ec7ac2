"""A network on a box as mixed-integer rows: only activations that are not stuck cost variables.

Every value is kept as a form C v + b over the variables so far (inputs and the post-activations of unstable
elements), with a proven error: |value - (C v + b)| <= slack, element by element, for every input of the box and the
values that v then takes. Affine nodes and stuck activations are substituted into the forms, so they cost neither
variables nor rows.

An unstable element with pre-activation z in [l, u] gets a variable y and one binary d_p per piece p that meets [l,
u], with sum_p d_p = 1 (for two pieces one binary). With f(x) - a_p x in [m_p, M_p] on [l, u]
(`redy.bounds.relaxation.intercepts`) and the piece's own intercept in [c_p, C_p] the rows are

    y - a_p z <= C_p + (M_p - C_p)(1 - d_p)        y - a_p z >= c_p - (c_p - m_p)(1 - d_p)

and where f is neither convex nor concave on [l, u] also t_p - (t_p - l)(1 - d_p) <= z <= t_(p+1) + (u - t_(p+1))(1 -
d_p). For the ReLU these are the four rows of Tjeng, Xiao and Tedrake, "Evaluating Robustness of Neural Networks with
Mixed Integer Programming" (ICLR 2019), eq. 3 to 6, with M = u and -l. Every right-hand side is loosened by the slack
of z and by its own rounding, so the program is a relaxation of the network in real arithmetic: what holds for every
point of the program (as `redy.milp.certify` proves it) holds for the network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from redy.bounds.interval import fan_in, needed_for, node_range
from redy.bounds.relaxation import piece_intercepts, winners
from redy.bounds.result import Bounds, Range
from redy.bounds.rounding import UNDERFLOW, gamma
from redy.errors import Unsupported
from redy.milp.pieces import Form, activation_rows, maximum_rows
from redy.milp.program import Program, ProgramBuilder
from redy.model import Activate, Affine, Array, Box, Dense, MaxPool, Network, Node, Term

LARGEST = 1 << 26
"""Numbers in the forms of one value (512 MiB) beyond which a network is not encoded."""


@dataclass(frozen=True, slots=True, eq=False)
class Forms:
    """A value over the variables: coefficients (1 + k, *shape), the constant first, and the slack (*shape)."""

    coefficients: Array
    slack: Array

    def padded(self, count: int) -> Array:
        """The coefficients for `count` variables."""
        missing = 1 + count - len(self.coefficients)
        return np.pad(self.coefficients, [(0, missing)] + [(0, 0)] * self.slack.ndim)


@dataclass
class Encoding:
    """The rows of one or several networks on the same box.

    Attributes:
        box: the inputs; they are the first variables, in C order.
        forms: every encoded value by its key (its name, or what `add` was told to put before it).
        ranges: a sound range of every encoded value.
    """

    box: Box
    forms: dict[str, Forms] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)
    builder: ProgramBuilder = field(default_factory=ProgramBuilder)

    def __post_init__(self) -> None:
        for lower, upper in zip(self.box.lower.flat, self.box.upper.flat, strict=True):
            self.builder.variable(lower, upper)

    @property
    def reach(self) -> Array:
        """The largest absolute value of the constant 1 and of every variable, (1 + k,)."""
        ends = np.stack([self.builder.lower, self.builder.upper])
        return np.append(1.0, np.abs(ends).max(axis=0))

    def add(
        self,
        network: Network,
        bounds: Bounds,
        wanted: Iterable[str] | None = None,
        *,
        prefix: str = "",
        shared: Network | None = None,
    ) -> None:
        """Encode the wanted values of a network (its outputs by default) and what they depend on.

        Args:
            network: its input has the box's shape.
            bounds: sound pre-activation bounds on the box; they decide what is stuck and give every big-M.
            wanted: names of values.
            prefix: put before every name to give the keys of `forms`.
            shared: a network encoded before without a prefix: nodes that it has too, on the same values, are not
                encoded again (a network and its duplicate share their common part).

        Raises:
            Unsupported: a wanted value depends on a node that cannot be bounded, or the forms would be too large.
        """
        keep = needed_for(network, wanted if wanted is not None else [port.name for port in network.outputs])
        names = self.begin(network)
        for node in network.nodes:
            if node.name not in keep:
                continue
            if shared is not None and self._is_shared(node, shared, names):
                names[node.name] = node.name
                continue
            if isinstance(node, Activate) and node.name in bounds.intervals:
                self.tighten(names[node.source], bounds.intervals[node.name])
            names[node.name] = prefix + node.name
            self.encode(node, names)

    def begin(self, network: Network) -> dict[str, str]:
        """Make the input's forms; returns the names of the network's values -> keys, for `encode` to go on with."""
        name = network.input.name
        size, shape = self.box.size, self.box.shape
        unit = np.concatenate([np.zeros((1, size)), np.eye(size)]).reshape(1 + size, *shape)
        self.forms[name] = Forms(unit, np.zeros(shape))
        self.ranges[name] = (self.box.lower, self.box.upper)
        return {name: name}

    def tighten(self, key: str, known: Range) -> None:
        """Intersect the range of an encoded value with another sound one (before its reader is encoded)."""
        lower, upper = self.ranges[key]
        self.ranges[key] = (np.maximum(lower, known[0]), np.minimum(upper, known[1]))

    def encode(self, node: Node, names: Mapping[str, str]) -> None:
        """Encode one node whose sources are encoded under the keys in `names`, which also holds its own key.

        Raises:
            Unsupported: the node cannot be bounded, or its forms would be too large.
        """
        if (1 + len(self.builder.lower)) * math.prod(node.shape) > LARGEST:
            raise Unsupported(f"{node.name}: the network is too large to be encoded as a mixed-integer program")
        key = names[node.name]
        ranges = {source: self.ranges[names[source]] for source in node.sources}
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            self.ranges[key] = node_range(node, ranges)
            if isinstance(node, Affine):
                self.forms[key] = self._affine(node, names)
            elif isinstance(node, Activate):
                self.forms[key] = self._activate(node, names[node.source], key)
            elif isinstance(node, MaxPool):
                self.forms[key] = self._max_pool(node, names[node.source], key)
            else:
                self.forms[key] = self._free(node, key)

    def program(self) -> Program:
        """Everything encoded so far, without an objective."""
        return self.builder.build()

    def objective(self, combination: Mapping[str, Array]) -> tuple[Array, float]:
        """sum over keys of combination[key] . value as coefficients of the variables and a constant.

        The constant includes the slack: the maximum of the objective is never below that of the values.
        """
        total, slack = np.zeros(1 + len(self.builder.lower)), 0.0
        reach = self.reach
        for key, weights in combination.items():
            forms, flat = self.forms[key], weights.ravel()
            coefficients = forms.coefficients.reshape(len(forms.coefficients), -1)
            total[: len(coefficients)] += coefficients @ flat
            size = reach[: len(coefficients)] @ (np.abs(coefficients) @ np.abs(flat))
            products = flat.size + len(coefficients) + 4 * len(combination) + 8
            slack += gamma(2 * products) * (size + abs(total[0])) + (1 + gamma(2 * products)) * (
                np.abs(flat) @ forms.slack.ravel()
            )
            slack += products * UNDERFLOW * (1 + float(reach.sum()))
        return total[1:], float(np.nextafter(total[0] + slack * (1 + gamma(64)), np.inf))

    def element(self, key: str, place: int, sign: float = 1.0) -> tuple[Array, float]:
        """`objective` for sign (1 or -1, or either times a power of two) times one element, counted in C order."""
        z = self._element(key, place)
        loose = abs(sign) * (z.slack + gamma(8) * (z.slack + abs(z.coefficients[0])))
        return sign * z.coefficients[1:], float(np.nextafter(sign * z.coefficients[0] + loose, np.inf))

    def _is_shared(self, node: Node, first: Network, names: Mapping[str, str]) -> bool:
        twin = first.by_name.get(node.name)
        if twin is None or node.name not in self.forms or any(names[source] != source for source in node.sources):
            return False
        return twin is node or _same(twin, node)

    def _size(self, forms: Forms) -> Array:
        """sum_j |C_j| |v_j|max, element by element."""
        flat = np.abs(forms.coefficients).reshape(len(forms.coefficients), -1)
        return np.asarray((self.reach[: len(flat)] @ flat).reshape(forms.slack.shape))

    def _affine(self, node: Affine, names: Mapping[str, str]) -> Forms:
        sources = [self.forms[names[term.source]] for term in node.terms]
        count = max((len(forms.coefficients) - 1 for forms in sources), default=0)
        n = 2 * (fan_in(node) + 8)
        total = np.zeros((1 + count, *node.shape))
        total[0] = node.bias
        size, slack = np.abs(node.bias), np.zeros(node.shape)
        for term, forms in zip(node.terms, sources, strict=True):
            total += term.operator.apply(forms.padded(count))
            spread = term.operator.spread(np.stack([self._size(forms), forms.slack]))
            size, slack = size + spread[0], slack + spread[1]
        slack = (slack + gamma(n) * size) * (1 + gamma(n)) + n * UNDERFLOW * (1 + float(self.reach.sum()))
        return Forms(total, slack)

    def _activate(self, node: Activate, source: str, key: str) -> Forms:
        lower, upper = self.ranges[source]
        stuck = node.function.stuck(lower, upper)
        function = node.function.broadcast_to(node.shape)
        below, above = piece_intercepts(function)
        piece = np.maximum(stuck, 0)[None]
        slope, low, high = (np.take_along_axis(each, piece, axis=0)[0] for each in (function.slopes, below, above))
        z = self.forms[source]
        result = np.where(stuck >= 0, slope * z.coefficients, 0.0)
        result[0] += np.where(stuck >= 0, low / 2 + high / 2, 0.0)
        slack = (
            np.abs(slope) * (z.slack + gamma(16) * self._size(z)) + (high - low) + gamma(16) * np.maximum(-low, high)
        )
        exact = np.isin(slope, (-1.0, 0.0, 1.0)) & (low == 0) & (high == 0)
        slack = np.where(
            exact, np.abs(slope) * z.slack, slack * (1 + gamma(16)) + 16 * UNDERFLOW * (1 + self.reach.sum())
        )
        forms = Forms(result, np.where(stuck >= 0, slack, 0.0))
        open_ = [int(place) for place in np.flatnonzero(stuck < 0)]
        variables = self._variables(key, open_)
        for place, variable in zip(open_, variables, strict=True):
            element = self._element(source, place)
            activation_rows(self.builder, element, function.restricted(np.unravel_index(place, node.shape)), variable)
        return self._own(forms, open_, variables)

    def _max_pool(self, node: MaxPool, source: str, key: str) -> Forms:
        pick, sure, _ = winners(node, *self.ranges[source])
        x = self.forms[source]
        flat = np.append(x.coefficients.reshape(len(x.coefficients), -1), np.zeros((len(x.coefficients), 1)), axis=1)
        copied = Forms(np.where(sure, flat[:, pick], 0.0), np.where(sure, np.append(x.slack, 0.0)[pick], 0.0))
        open_ = [int(place) for place in np.flatnonzero(~sure)]
        variables = self._variables(key, open_)
        least = self.ranges[key][0]
        windows = node.index.reshape(-1, node.index.shape[-1])
        for place, variable in zip(open_, variables, strict=True):
            elements = [self._element(source, int(i)) for i in windows[place] if i >= 0]
            maximum_rows(self.builder, [z for z in elements if z.upper >= least.flat[place]], variable)
        return self._own(copied, open_, variables)

    def _free(self, node: Node, key: str) -> Forms:
        """A value of which only the range is used: one variable per element, tied to nothing."""
        places = list(range(math.prod(node.shape)))
        nothing = Forms(np.zeros((1, *node.shape)), np.zeros(node.shape))
        return self._own(nothing, places, self._variables(key, places))

    def _variables(self, key: str, places: Sequence[int]) -> list[int]:
        """A new variable for each of some elements of a value, bounded by its range."""
        lower, upper = self.ranges[key]
        return [self.builder.variable(lower.flat[place], upper.flat[place]) for place in places]

    def _own(self, forms: Forms, places: Sequence[int], variables: Sequence[int]) -> Forms:
        """The forms with some elements (zero so far) equal to variables of their own."""
        result = forms.padded(max(variables, default=len(forms.coefficients) - 2) + 1)
        result.reshape(len(result), -1)[[1 + variable for variable in variables], list(places)] = 1.0
        return Forms(result, forms.slack)

    def _element(self, key: str, place: int) -> Form:
        forms, (lower, upper) = self.forms[key], self.ranges[key]
        coefficients = forms.coefficients.reshape(len(forms.coefficients), -1)[:, place]
        size = float(self.reach[: len(coefficients)] @ np.abs(coefficients))
        return Form(
            coefficients, float(forms.slack.flat[place]), size, float(lower.flat[place]), float(upper.flat[place])
        )


def _same(first: Node, second: Node) -> bool:
    """Whether two nodes of one name compute the same from the same sources."""
    if isinstance(first, Affine) and isinstance(second, Affine):
        return (
            np.array_equal(first.bias, second.bias)
            and len(first.terms) == len(second.terms)
            and all(_same_term(a, b) for a, b in zip(first.terms, second.terms, strict=True))
        )
    if isinstance(first, Activate) and isinstance(second, Activate):
        return (first.source, first.shape) == (second.source, second.shape) and first.function == second.function
    return False


def _same_term(first: Term, second: Term) -> bool:
    if first.source != second.source:
        return False
    a, b = first.operator, second.operator
    both_dense = isinstance(a, Dense) and isinstance(b, Dense)
    return a is b or (both_dense and a.in_shape == b.in_shape and np.array_equal(a.matrix(), b.matrix()))
