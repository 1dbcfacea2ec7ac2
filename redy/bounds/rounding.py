"""Rounding errors of float64 arithmetic, bounded.

With unit roundoff u = 2^-53, a sum of products in which every product passes at most n roundings differs from its
exact value by at most gamma_n = n u / (1 - n u) times the sum of the absolute products, in any order of summation
(Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., Lemma 3.1 and section 3.1). Products that underflow
add at most `TINY` each, which `TINY` covers for the sizes at hand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UNIT = 2.0**-53
TINY = 2.0**-1000
"""Covers the underflow of up to 2^70 products (each below 2^-1074)."""

UNDERFLOW = 2.0**-1022
"""The smallest normal number: more than what one underflowing product can lose (gradually or flushed to zero)."""

LARGE = 2.0**500
"""Times any non-zero float64 it does not vanish: it tells "no product at all" from "products that underflow"."""

GROW = 1.0 + 2.0**-30
"""Covers the roundings of computing an error bound itself (fewer than 2^22 operations on non-negative numbers)."""


READ = 3
"""Roundings within which a weight of a network may differ from the number that its file means.

1 / d of a division, alpha * w of a Gemm, factor and constant of a BatchNormalization, and breakpoints of a HardSigmoid
are rounded to float64 when they are read; every other number is read as it is."""


def gamma(operations: int) -> float:
    """gamma_n for `operations` and the roundings of the weights themselves, rounded up.

    Raises:
        ValueError: n u is not small, so no useful bound exists.
    """
    if operations >= 2**40:
        raise ValueError(f"no rounding bound for {operations} operations")
    count = operations + READ
    return count * UNIT / (1.0 - count * UNIT) * GROW


def down(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The next smaller float64, except that an infinite number stays."""
    return np.where(np.isfinite(x), np.nextafter(x, -np.inf), x)


def up(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The next larger float64, except that an infinite number stays."""
    return np.where(np.isfinite(x), np.nextafter(x, np.inf), x)
