"""A network as C99: one .c and one .h, without heap, recursion or library, and with test vectors that it checks itself.

Sums start at the bias and add the products from the first input to the last in the type of the weights, as
`evaluate_in_order` does; compiled without contraction and fast-math (`-std=c99`) both agree bit for bit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redy.errors import InputError, Unsupported
from redy.model import Activate, Affine, Array, Network
from redy.version import __version__

MOST_WEIGHTS = 1 << 22
"""Numbers of one matrix, at most; a larger one does not belong into a C file."""
VECTORS = 8
"""Test vectors in the file."""
_KEYWORDS = frozenset(
    {"auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern", "float"}
    | {"for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed", "sizeof"}
    | {"static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while"}
)


@dataclass(frozen=True, slots=True)
class Source:
    """The text of both files, and what the code takes: bytes of constants, of static RAM, of buffers on the stack."""

    code: str
    header: str
    flash: int
    ram: int
    stack: int


@dataclass(frozen=True, slots=True)
class Step:
    """One layer: for an affine node `weights` (rows, columns of all sources) and `bias`; else the node's function."""

    node: Affine | Activate
    sources: tuple[str, ...]
    weights: NDArray[np.floating]
    bias: NDArray[np.floating]


def c_network(network: Network, prefix: str, points: Array) -> Source:
    """The C99 files of a network.

    Args:
        network: affine nodes and piecewise-linear activations only, with one output.
        prefix: of every name that the header declares.
        points: inputs (n, *input shape) for the test vectors.

    Raises:
        InputError: the prefix is no C identifier.
        Unsupported: a node has no C form here; the text names it.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", prefix) or prefix in _KEYWORDS:
        raise InputError(f"--prefix {prefix}: must be a C identifier, such as ctrl")
    steps = _steps(network)
    real = "float" if network.weight_dtype == "float32" else "double"
    size = 4 if real == "float" else 8
    inputs = int(np.prod(network.input.shape))
    outputs = int(np.prod(network.outputs[0].shape))
    place, room = _places(network, steps)
    tables, body = [], []
    flash = 0
    for number, step in enumerate(steps):
        parts, code, numbers = _code(step, number, place, real)
        tables += parts
        body.append(code)
        flash += numbers * size
    tested = np.asarray(points, dtype=_dtype(network)).reshape(-1, inputs)[:VECTORS]
    expected = evaluate_in_order(network, tested)
    flash += (tested.size + expected.size) * size
    largest = float(np.abs(expected).max(initial=1.0))
    result = _place(network.outputs[0].name, network, place)
    code = f"""{_head(prefix, "the code")}
#include "{prefix}.h"

{"".join(tables)}
void {prefix}_evaluate(const {real} x[{inputs}], {real} y[{outputs}])
{{
    {real} v[{room}];
    int i, j;
{"".join(body)}    for (i = 0; i < {outputs}; i++)
        y[i] = {result}[i];
    (void)v;
    (void)j;
}}

{_table(real, f"test_inputs[{len(tested)}][{inputs}]", tested)}\
{_table(real, f"test_outputs[{len(tested)}][{outputs}]", expected)}
int {prefix}_selftest(void)
{{
    int wrong = 0, i, k;
    for (i = 0; i < {len(tested)}; i++) {{
        {real} y[{outputs}];
        int bad = 0;
        {prefix}_evaluate(test_inputs[i], y);
        for (k = 0; k < {outputs}; k++) {{
            {real} d = y[k] - test_outputs[i][k];
            if (!(d <= {prefix.upper()}_TOLERANCE && d >= -{prefix.upper()}_TOLERANCE))
                bad = 1;
        }}
        wrong += bad;
    }}
    return wrong;
}}
"""
    tolerance = _number(_dtype(network).type(1e-5 * largest if size == 4 else 1e-12 * largest))
    stack = room * size
    header = f"""{_head(prefix, "its interface")}
#ifndef {prefix.upper()}_H
#define {prefix.upper()}_H

#define {prefix.upper()}_INPUTS {inputs}
#define {prefix.upper()}_OUTPUTS {outputs}
/* Bytes of constants (weights and test vectors), of static RAM, and of the buffers on the stack. */
#define {prefix.upper()}_FLASH_BYTES {flash}
#define {prefix.upper()}_RAM_BYTES 0
#define {prefix.upper()}_STACK_BYTES {stack}
/* Largest difference that the self-test accepts. */
#define {prefix.upper()}_TOLERANCE {tolerance}

#ifdef __cplusplus
extern "C" {{
#endif
/* The outputs y of the network for the inputs x. */
void {prefix}_evaluate(const {real} x[{inputs}], {real} y[{outputs}]);
/* Number of test vectors, of {len(tested)}, whose outputs differ by more than the tolerance; 0 is good. */
int {prefix}_selftest(void);
#ifdef __cplusplus
}}
#endif
#endif
"""
    return Source(code, header, flash, 0, stack)


def evaluate_in_order(network: Network, x: NDArray[np.floating]) -> NDArray[np.floating]:
    """The output for inputs (n, input size), as the C code computes it, (n, output size)."""
    values = {network.input.name: x.T}
    for step in _steps(network):
        given = np.concatenate([values[name] for name in step.sources])
        if isinstance(step.node, Affine):
            result = np.repeat(step.bias[:, None], x.shape[0], axis=1)
            for column in range(step.weights.shape[1]):
                result = result + step.weights[:, column, None] * given[column]
        elif step.node.function.is_relu:
            result = np.where(given > 0, given, given.dtype.type(0))
        else:
            breaks, slopes, intercepts = _pieces(step.node, x.dtype)
            piece = sum((given > line[:, None]).astype(int) for line in breaks)
            rows = np.arange(len(given))[:, None]
            result = slopes[piece, rows] * given + intercepts[piece, rows]
        values[step.node.name] = result
    return np.ascontiguousarray(values[network.outputs[0].name].T)


def _steps(network: Network) -> tuple[Step, ...]:
    """The layers, or a refusal that names the node."""
    if len(network.outputs) != 1:
        raise Unsupported("C: the network has several outputs; export one with one output")
    dtype, steps = _dtype(network), []
    for node in network:
        if isinstance(node, Affine):
            columns = sum(int(np.prod(term.operator.in_shape)) for term in node.terms)
            if columns * node.bias.size > MOST_WEIGHTS:
                raise Unsupported(
                    f"{node.name}: as a matrix it has more than {MOST_WEIGHTS:,} numbers; use the ONNX file"
                )
            matrices = [np.zeros((node.bias.size, 0)), *(term.operator.matrix() for term in node.terms)]
            weights = np.concatenate(matrices, axis=1).astype(dtype)
            bias = node.bias.ravel().astype(dtype)
            if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
                raise Unsupported(
                    f"{node.name}: a weight or bias is not finite, so it has no C form; use the ONNX file"
                )
            steps.append(Step(node, node.sources, weights, bias))
        elif isinstance(node, Activate):
            steps.append(Step(node, node.sources, np.zeros((0, 0), dtype), np.zeros(0, dtype)))
        else:
            raise Unsupported(f"{node.name}: {type(node).__name__} has no C form; use the ONNX file")
    return tuple(steps)


def _dtype(network: Network) -> np.dtype[np.floating]:
    return np.dtype(np.float32 if network.weight_dtype == "float32" else np.float64)


def _places(network: Network, steps: tuple[Step, ...]) -> tuple[dict[str, int], int]:
    """Where each value starts in the buffer, and its length: a value's place is free behind its last reader."""
    last = {name: number for number, step in enumerate(steps) for name in step.sources}
    last[network.outputs[0].name] = len(steps)
    place: dict[str, int] = {}
    living: dict[str, tuple[int, int]] = {}
    room = 1
    for number, step in enumerate(steps):
        living = {name: span for name, span in living.items() if last.get(name, -1) >= number}
        size = int(np.prod(step.node.shape))
        source = step.sources[0] if step.sources else ""
        if isinstance(step.node, Activate) and source in living and last[source] == number:
            start = living[source][0]
        else:
            start = 0
            for begin, end in sorted(living.values()):
                if begin - start >= size:
                    break
                start = max(start, end)
        place[step.node.name] = start
        living[step.node.name] = (start, start + size)
        room = max(room, start + size)
    return place, room


def _place(name: str, network: Network, place: dict[str, int]) -> str:
    return "x" if name == network.input.name else f"(v + {place[name]})"


def _code(step: Step, number: int, place: dict[str, int], real: str) -> tuple[list[str], str, int]:
    """The tables of a layer, its loop, and how many numbers the tables hold."""
    rows, target = int(np.prod(step.node.shape)), f"v[{place[step.node.name]} + i]"
    named = [f"(v + {place[name]})" if name in place else "x" for name in step.sources]
    if isinstance(step.node, Affine):
        tables, lines = [_table(real, f"b{number}[{rows}]", step.bias)], [f"        {real} s = b{number}[i];"]
        column, numbers = 0, rows
        for k, term in enumerate(step.node.terms):
            width = int(np.prod(term.operator.in_shape))
            part = step.weights[:, column : column + width]
            tables.append(_table(real, f"w{number}_{k}[{rows}][{width}]", part))
            lines += [
                f"        for (j = 0; j < {width}; j++)",
                f"            s += w{number}_{k}[i][j] * {named[k]}[j];",
            ]
            column, numbers = column + width, numbers + part.size
        lines.append(f"        {target} = s;")
    elif step.node.function.is_relu:
        tables, numbers = [], 0
        lines = [f"        {real} s = {named[0]}[i];", f"        {target} = s > 0 ? s : 0;"]
    else:
        pieces = _pieces(step.node, np.dtype(np.float32 if real == "float" else np.float64))
        tables = [
            _table(real, f"{name}{number}[{len(rows_of)}][{rows}]", rows_of)
            for name, rows_of in zip(("t", "a", "c"), pieces, strict=True)
        ]
        numbers = sum(part.size for part in pieces)
        lines = [
            f"        {real} s = {named[0]}[i];",
            "        int p = 0;",
            f"        for (j = 0; j < {len(pieces[0])}; j++)",
            f"            p += s > t{number}[j][i];",
            f"        {target} = a{number}[p][i] * s + c{number}[p][i];",
        ]
    body = "\n".join(lines)
    return tables, f"    for (i = 0; i < {rows}; i++) {{ /* {_comment(step.node.name)} */\n{body}\n    }}\n", numbers


def _pieces(
    node: Activate, dtype: np.dtype[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Breakpoints, slopes and intercepts of every unit, (pieces, units)."""
    function = node.function.broadcast_to(node.shape)
    parts = (function.breakpoints, function.slopes, function.intercepts())
    first, second, third = (part.reshape(len(part), -1).astype(dtype) for part in parts)
    return first, second, third


def _head(prefix: str, what: str) -> str:
    return f"/* {prefix}: {what}. Written by redy {__version__}. C99; compile without contraction and fast-math. */"


def _comment(name: str) -> str:
    """A name that cannot end the comment it stands in."""
    return re.sub(r"[^A-Za-z0-9_.:-]", "_", name)


def _table(real: str, declaration: str, values: NDArray[np.floating]) -> str:
    items = ",\n".join(_row(row) for row in values) if values.ndim > 1 else _row(values)[1:-1]
    return f"static const {real} {declaration} = {{\n{items}\n}};\n"


def _row(values: NDArray[np.floating]) -> str:
    lines = [", ".join(_number(value) for value in values[k : k + 6]) for k in range(0, len(values), 6)]
    return "{" + ",\n".join(lines) + "}"


def _number(value: np.floating) -> str:
    return float(value).hex() + ("f" if isinstance(value, np.float32) else "")
