"""A mixed-integer linear program that knows no solver.

    maximise    objective . v + offset
    subject to  row_lower <= A v <= row_upper,  lower <= v <= upper,  v_j in {0, 1} where binary

with A in compressed rows. Minimising f is maximising -f.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from redy.model import Array


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """The program above with n variables, m rows and k non-zero coefficients.

    Attributes:
        lower: (n,) lower bounds of the variables.
        upper: (n,) upper bounds of the variables.
        binary: (n,) which variables are 0 or 1.
        starts: (m + 1,) where each row begins in `columns` and `values`.
        columns: (k,) the variable of each coefficient.
        values: (k,) the coefficients.
        row_lower: (m,) lower ends of the rows, -inf where there is none.
        row_upper: (m,) upper ends of the rows, inf where there is none.
        objective: (n,) coefficients of the objective.
        offset: its constant.
    """

    lower: Array
    upper: Array
    binary: NDArray[np.bool_]
    starts: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: Array
    row_lower: Array
    row_upper: Array
    objective: Array
    offset: float = 0.0

    @property
    def variables(self) -> int:
        """n."""
        return int(self.lower.size)

    @property
    def rows(self) -> int:
        """m."""
        return int(self.row_lower.size)

    @property
    def is_linear(self) -> bool:
        """True if no variable is binary."""
        return not self.binary.any()

    @property
    def row_of(self) -> NDArray[np.int64]:
        """(k,) the row of each coefficient."""
        return np.repeat(np.arange(self.rows), np.diff(self.starts))

    def aimed_at(self, objective: Array, offset: float = 0.0) -> Program:
        """The same constraints with another objective; coefficients of later variables may be left out."""
        return replace(self, objective=np.pad(objective, (0, self.variables - len(objective))), offset=offset)

    def relaxed(self) -> Program:
        """The linear relaxation: binaries may take any value in their bounds."""
        return replace(self, binary=np.zeros_like(self.binary))

    def fixed(self, variable: int, value: float) -> Program:
        """The same program with one variable fixed."""
        lower, upper = self.lower.copy(), self.upper.copy()
        lower[variable] = upper[variable] = value
        return replace(self, lower=lower, upper=upper)

    def apply(self, point: Array) -> Array:
        """A v for a point (n,), as (m,)."""
        products = self.values * point[self.columns]
        return np.bincount(self.row_of, products, minlength=self.rows).astype(np.float64)


@dataclass(slots=True)
class ProgramBuilder:
    """Variables and rows as they are added; `build` gives the program without an objective."""

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    binary: list[bool] = field(default_factory=list)
    _columns: list[NDArray[np.int64]] = field(default_factory=list)
    _values: list[Array] = field(default_factory=list)
    _ends: list[tuple[float, float]] = field(default_factory=list)

    def variable(self, lower: float, upper: float, *, binary: bool = False) -> int:
        """A new variable; returns its index."""
        self.lower.append(float(lower))
        self.upper.append(float(upper))
        self.binary.append(binary)
        return len(self.lower) - 1

    def row(self, form: Array, extra: dict[int, float], lower: float = -np.inf, upper: float = np.inf) -> None:
        """lower <= form . v + sum extra_j v_j <= upper; `form` covers the first variables."""
        columns = np.flatnonzero(form)
        self._columns.append(np.append(columns, np.fromiter(extra, np.int64, len(extra))))
        self._values.append(np.append(form[columns], np.fromiter(extra.values(), np.float64, len(extra))))
        self._ends.append((lower, upper))

    def build(self) -> Program:
        """The program of everything added so far."""
        counts = [0, *(len(columns) for columns in self._columns)]
        return Program(
            np.array(self.lower),
            np.array(self.upper),
            np.array(self.binary, dtype=bool),
            np.cumsum(counts, dtype=np.int64),
            np.concatenate([np.empty(0, np.int64), *self._columns]),
            np.concatenate([np.empty(0), *self._values]),
            np.array([ends[0] for ends in self._ends]),
            np.array([ends[1] for ends in self._ends]),
            np.zeros(len(self.lower)),
        )
