"""Compiled: lines that enclose one ReLU, or the difference of two, valid in exact arithmetic for the floats used."""

from __future__ import annotations

from redy.condensed.kernels.compiling import compiled

_EPS = 2.0**-52
_TINY = 1e-290


@compiled(inner=True, inline=True)
def relu_lines(l, u):  # type: ignore[no-untyped-def]  # numba infers types
    """(lower slope, upper slope, upper intercept) of relu on [l, u], valid in exact arithmetic; the lower line has
    intercept 0.
    """
    if l >= 0.0:
        return 1.0, 1.0, 0.0
    if u <= 0.0:
        return 0.0, 0.0, 0.0
    slope = min(u / (u - l), 1.0)
    intercept = max(-slope * l, u * (1.0 - slope)) * (1.0 + 4.0 * _EPS) + _TINY
    return (1.0 if u > -l else 0.0), slope, intercept


@compiled(inner=True, inline=True)
def relu_gap(l, u):  # type: ignore[no-untyped-def]
    """The largest distance between the two lines of `relu_lines` (a heuristic size: rounding does not matter)."""
    if l >= 0.0 or u <= 0.0:
        return 0.0
    return max(-l * u / (u - l), min(u, -l))


@compiled(inner=True)
def difference_lines(l, u, dl, du, sl, su, out):  # type: ignore[no-untyped-def]
    """Lines for v = relu(z + d) - relu(z), z in [l, u], d in [dl, du], z + d in [sl, su].

    out = (alpha, beta, t) of the lower, then of the upper line alpha * d + beta * z + t.
    """
    low, slope, intercept = relu_lines(l, u)
    low2, slope2, intercept2 = relu_lines(sl, su)
    separate = relu_gap(l, u) + relu_gap(sl, su)
    if separate <= max(-dl, du):
        out[0], out[1], out[2] = low2, low2 - slope, -intercept
        out[3], out[4], out[5] = slope2, slope2 - low, intercept2
        return
    # v lies between 0 and d: relu is monotone and 1-Lipschitz.
    out[1] = 0.0
    out[4] = 0.0
    if dl >= 0.0:
        out[0], out[2], out[3], out[5] = 0.0, 0.0, 1.0, 0.0
    elif du <= 0.0:
        out[0], out[2], out[3], out[5] = 1.0, 0.0, 0.0, 0.0
    else:
        _, out[3], out[5] = relu_lines(dl, du)
        # min(0, d) = -relu(-d): the lower line mirrors the upper line of relu on [-du, -dl].
        _, mirrored, offset = relu_lines(-du, -dl)
        out[0], out[2] = mirrored, -offset
