"""A family as one self-contained C99 file: no heap, no library, no recursion; memory is a few buffers on the stack.

Sums are formed in the order of `redy.slicing.program`, so the outputs are those of `Family.evaluate` bit for bit, as
long as the compiler neither contracts a * b + c into one rounding (`-std=c99`, or `-ffp-contract=off`) nor reorders
sums (no `-ffast-math`), and evaluates in the type of the weights (FLT_EVAL_METHOD 0: every target but the old x87).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from redy.errors import InputError
from redy.slicing.archive import pack_programs
from redy.slicing.cuts import GridCut, TreeCut
from redy.slicing.export_onnx import round_up
from redy.version import __version__

if TYPE_CHECKING:
    from redy.slicing.family import Family, Form

_HEAD = """\
/* Written by redy {version}: a family of {slices} slices, {form} form. C99.
 * Define REDY_MAIN for a program that maps raw inputs to raw outputs.
 *
 * int redy_slice(const redy_real x[{inputs}])
 *     The slice that x belongs to, or -1 if x lies outside the box.
 * int redy_evaluate(const redy_real x[{inputs}], redy_real y[{outputs}])
 *     The same; fills y with the outputs unless it is -1.
 *
 * Compile without contraction and fast-math: cc -std=c99 -O2 (or -ffp-contract=off).
 */
#include <stdint.h>

typedef {real} redy_real;

#ifndef REDY_MAIN
int redy_slice(const redy_real x[{inputs}]);
int redy_evaluate(const redy_real x[{inputs}], redy_real y[{outputs}]);
#define REDY_API
#else
#define REDY_API static
#endif

"""

_MAIN = """
#ifdef REDY_MAIN
#include <stdio.h>
int main(void)
{{
    redy_real x[{inputs}], y[{outputs}];
    while (fread(x, sizeof x, 1, stdin) == 1) {{
        if (redy_evaluate(x, y) < 0)
            return 3;
        if (fwrite(y, sizeof y, 1, stdout) != 1)
            return 1;
    }}
    return 0;
}}
#endif
"""

_INSIDE = """
    int k;
    for (k = 0; k < {inputs}; k++)
        if (!(x[k] >= lower[k] && x[k] <= upper[k]))
            return -1;
"""

_GRID = """
REDY_API int redy_slice(const redy_real x[{inputs}])
{{
    int32_t slice = 0, j;{inside}    for (k = 0; k < {inputs}; k++) {{
        int32_t place = 0;
        for (j = first_face[k]; j < first_face[k + 1]; j++)
            place += x[k] >= faces[j];
        slice = slice * (first_face[k + 1] - first_face[k] + 1) + place;
    }}
    return slice;
}}
"""

_TREE = """
REDY_API int redy_slice(const redy_real x[{inputs}])
{{
    int32_t node = {root};{inside}    while (node >= 0)
        node = children[2 * node + (x[axes[node]] >= faces[node])];
    return -1 - node;
}}
"""

_FOLDED = """
REDY_API int redy_evaluate(const redy_real x[{inputs}], redy_real y[{outputs}])
{{
    redy_real values[{values}];
    int32_t begin[{steps} + 1];
    const int slice = redy_slice(x);
    const uint32_t *at;
    uint32_t count, step, i, j, k;
    int32_t end = {inputs};
    if (slice < 0)
        return -1;
    at = programs + starts[slice_mask[slice]];
    for (i = 0; i < {inputs}; i++)
        values[i] = x[i];
    begin[0] = 0;
    count = *at++;
    for (step = 1; step <= count; step++) {{
        const uint32_t relu = at[0], rows = at[1], bias = at[2], terms = at[3];
        redy_real *z = values + end;
        at += 4;
        for (i = 0; i < rows; i++)
            z[i] = pool[bias + i];
        for (k = 0; k < terms; k++, at += 3) {{
            const redy_real *source = values + begin[at[0]], *weight = pool + at[2];
            const uint32_t columns = at[1];
            for (i = 0; i < rows; i++, weight += columns) {{
                redy_real sum = z[i];
                for (j = 0; j < columns; j++)
                    sum += weight[j] * source[j];
                z[i] = sum;
            }}
        }}
        if (relu)
            for (i = 0; i < rows; i++)
                z[i] = z[i] > 0 ? z[i] : 0;
        begin[step] = end;
        end += (int32_t)rows;
    }}
    for (i = 0; i < {outputs}; i++)
        y[i] = values[begin[count] + (int32_t)i];
    return slice;
}}
"""

_SHARED = """
/* Of each value the living elements come first, with their numbers in living[]. */
REDY_API int redy_evaluate(const redy_real x[{inputs}], redy_real y[{outputs}])
{{
    redy_real values[{values}];
    uint16_t living[{values}];
    int32_t begin[{steps} + 1], size[{steps} + 1];
    const int slice = redy_slice(x);
    const uint32_t *at = program;
    const uint8_t *mask;
    uint32_t step, i, j, k, unit = 0;
    int32_t end = {inputs};
    if (slice < 0)
        return -1;
    mask = masks + (uint32_t)slice_mask[slice] * {mask_bytes}u;
    for (i = 0; i < {inputs}; i++) {{
        values[i] = x[i];
        living[i] = (uint16_t)i;
    }}
    begin[0] = 0;
    size[0] = {inputs};
    for (step = 1; step <= {steps}; step++) {{
        const uint32_t relu = at[0], rows = at[1], bias = at[2], terms = at[3];
        redy_real *z = values + end;
        uint16_t *row = living + end;
        uint32_t alive = 0;
        at += 4;
        for (i = 0; i < rows; i++) {{
            if (!relu || (mask[(unit + i) >> 2] >> (2 * ((unit + i) & 3)) & 3)) {{
                row[alive] = (uint16_t)i;
                z[alive] = pool[bias + i];
                alive++;
            }}
        }}
        for (k = 0; k < terms; k++, at += 3) {{
            const redy_real *source = values + begin[at[0]];
            const uint16_t *column = living + begin[at[0]];
            const uint32_t columns = (uint32_t)size[at[0]], width = at[1];
            for (i = 0; i < alive; i++) {{
                const redy_real *weight = pool + at[2] + row[i] * width;
                redy_real sum = z[i];
                for (j = 0; j < columns; j++)
                    sum += weight[column[j]] * source[j];
                z[i] = sum;
            }}
        }}
        if (relu) {{
            for (i = 0; i < alive; i++)
                z[i] = z[i] > 0 ? z[i] : 0;
            unit += rows;
        }}
        begin[step] = end;
        size[step] = (int32_t)alive;
        end += (int32_t)alive;
    }}
    for (i = 0; i < {outputs}; i++)
        y[i] = values[begin[{steps}] + (int32_t)i];
    return slice;
}}
"""


def c_source(family: Family, form: Form | None = None) -> str:
    """The C99 file of a family in one of its forms."""
    chosen = form or family.form
    if family.front is not None:
        raise InputError("a family that is cut on a hidden layer has no C form; export its slices as ONNX")
    if family.winner is not None:
        raise InputError("a family that keeps the decision alone has no C form; export it as ONNX")
    whole, dtype = family.whole, family.whole.dtype
    if chosen == "shared":
        programs = [whole]
        data = pack_programs(programs)
        if max(step.bias.size for step in whole.steps) > 1 << 16:
            raise InputError("the shared form in C takes layers of at most 65,536 units; export the folded form")
        tables = [_array("uint8_t", "masks", family.masks.ravel()), _array("uint32_t", "program", data["programs"][1:])]
    else:
        programs = [family.mask_program(mask, "folded") for mask in range(len(family.masks))]
        data = pack_programs(programs)
        tables = [_array("uint32_t", "starts", data["starts"]), _array("uint32_t", "programs", data["programs"])]
    names = {
        "version": __version__,
        "slices": len(family),
        "form": chosen,
        "inputs": whole.inputs,
        "outputs": whole.steps[-1].bias.size,
        "real": "float" if dtype == np.float32 else "double",
        "values": max(p.inputs + sum(step.bias.size for step in p.steps) for p in programs),
        "steps": max(len(p.steps) for p in programs),
        "mask_bytes": family.masks.shape[1],
    }
    body = _SHARED if chosen == "shared" else _FOLDED
    return "".join(
        [
            _HEAD.format(**names),
            _cut(family, names),
            _array("uint32_t", "slice_mask", family.slice_mask),
            *tables,
            _array("redy_real", "pool", data["pool"]),
            body.format(**names),
            _MAIN.format(**names),
        ]
    )


def program_source(family: Family) -> str:
    """The original network exported the same way: the folded form with one slice, nothing removed."""
    from redy.slicing.family import Family as Kind  # noqa: PLC0415 - family imports the exports when it needs them

    cut = GridCut.of(family.cut.box, (1,) * family.cut.box.size)
    masks = np.full((1, family.masks.shape[1]), 0xFF, dtype=np.uint8)
    one = np.ones(1, dtype=bool)
    arrays = pack_programs([family.whole])
    whole = Kind(family.original, cut, masks, np.zeros(1, dtype=np.int64), one, "folded", arrays)
    return c_source(whole, "folded")


def _cut(family: Family, names: dict[str, Any]) -> str:
    cut, dtype = family.cut, family.whole.dtype
    lower, upper = family.limits
    limits = _array("redy_real", "lower", lower) + _array("redy_real", "upper", upper)
    if isinstance(cut, GridCut):
        faces = [round_up(face, dtype) for face in cut.faces]
        first = np.concatenate([[0], np.cumsum([face.size for face in faces])])
        tables = _array("int32_t", "first_face", first) + _array("redy_real", "faces", np.concatenate(faces))
        code = _GRID.format(inside=_INSIDE.format(**names), **names)
    else:
        assert isinstance(cut, TreeCut)
        tables = _array("int32_t", "axes", cut.axis) + _array("redy_real", "faces", round_up(cut.face, dtype))
        tables += _array("int32_t", "children", cut.children.ravel())
        code = _TREE.format(inside=_INSIDE.format(**names), root=0 if len(cut.axis) else -1, **names)
    return limits + tables + code


def _array(kind: str, name: str, values: NDArray[Any]) -> str:
    """A constant table; an empty one gets one element that nothing reads, since C has no empty arrays."""
    items = [_number(value) for value in (values if len(values) else np.zeros(1, dtype=values.dtype))]
    return f"static const {kind} {name}[{len(items)}] = {{\n{_lines(items)}}};\n"


def _number(value: Any) -> str:  # noqa: ANN401 - a numpy scalar of any kind
    if isinstance(value, np.floating):
        return float(value).hex() + ("f" if isinstance(value, np.float32) else "")
    return str(int(value))


def _lines(items: Iterable[str]) -> str:
    text, row, length = [], [], 0
    for item in items:
        row.append(item)
        length += len(item) + 1
        if length > 100:
            text.append(",".join(row))
            row, length = [], 0
    if row:
        text.append(",".join(row))
    return ",\n".join(text) + "\n"
