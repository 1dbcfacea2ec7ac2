"""Rounding errors of IEEE float64 arithmetic, bounded (N. J. Higham, Accuracy and Stability of Numerical Algorithms).

A computed sum of products in which every product passes at most n roundings differs from its exact value by at most
gamma_n = n u / (1 - n u) times the sum of the absolute products, in any order of summation, fused or not (2nd ed.,
Lemma 3.1 and section 3.1). A product that underflows loses at most 2^-1022 besides.
"""

UNIT = 2.0**-53
"""u: a rounded operation is exact up to a factor 1 + d with |d| <= u."""
GROW = 1.0 + 2.0**-30
"""Covers the roundings of an error bound itself: at most 2^22 operations on numbers that are not negative."""
LARGEST = 2.0**100
"""Every magnitude must stay below this number, see `TINY`."""
TINY = 2.0**-880
"""Covers underflow: up to 2^40 products that lose 2^-1022 each and then act on magnitudes below `LARGEST`."""


def gamma(operations: int) -> float:
    """gamma_n, rounded up."""
    if operations >= 2**40:
        raise ValueError(f"no rounding bound for {operations} operations")
    return operations * UNIT / (1.0 - operations * UNIT) * GROW
