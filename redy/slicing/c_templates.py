"""The C99 text of `redy.slicing.export_c`, for str.format."""

HEAD = """\
/* Written by redy {version}: a family of {slices} slices, {form} form. C99.{note}
 * Define REDY_MAIN for a program that maps raw inputs to raw outputs.
 *
 * int redy_slice(const redy_real x[{raw}])
 *     The slice that x belongs to, or -1 if x lies outside the box.
 * int redy_evaluate(const redy_real x[{raw}], redy_real y[{outputs}])
 *     The same; fills y with the outputs unless it is -1.
 *
 * Compile without contraction and fast-math: cc -std=c99 -O2 (or -ffp-contract=off).
 */
#include <stdint.h>

typedef {real} redy_real;
typedef {index} redy_index;

int redy_slice(const redy_real x[{raw}]);
int redy_evaluate(const redy_real x[{raw}], redy_real y[{outputs}]);

"""

MAIN = """
#ifdef REDY_MAIN
#include <stdio.h>
int main(void)
{{
    static redy_real x[64][{raw}], y[64][{outputs}];
    size_t count, i;
    while ((count = fread(x, sizeof x[0], 64, stdin)) > 0) {{
        for (i = 0; i < count; i++)
            if (redy_evaluate(x[i], y[i]) < 0)
                return 3;
        if (fwrite(y, sizeof y[0], count, stdout) != count)
            return 1;
    }}
    return 0;
}}
#endif
"""

INSIDE = """
    int k;
    for (k = 0; k < {inputs}; k++)
        if (!(x[k] >= lower[k] && x[k] <= upper[k]))
            return -1;
"""

GRID = """
{scope}int {slice}(const redy_real x[{inputs}])
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

TREE = """
{scope}int {slice}(const redy_real x[{inputs}])
{{
    int32_t node = {root};{inside}    while (node >= 0)
        node = children[2 * node + (x[axes[node]] >= faces[node])];
    return -1 - node;
}}
"""

FOUR = """
/* Four rows of a layer: sums of their own, side by side. -DREDY_PLAIN does without the vectors of gcc and clang. */
#if defined(__GNUC__) && !defined(REDY_PLAIN)
typedef redy_real redy_four __attribute__((vector_size(4 * sizeof(redy_real))));
static inline void redy_add(redy_four *sum, const redy_four *weight, redy_real value)
{{
    const redy_four all = {{value, value, value, value}};
    *sum += *weight * all;
}}
/* Without a branch on signs, which no processor could predict. */
static inline void redy_store(redy_real *z, const redy_four *sum, uint32_t relu)
{{
    const redy_four zero = {{0, 0, 0, 0}};
    const redy_four y = relu ? (redy_four)((*sum > zero) & (__typeof__(*sum > zero))*sum) : *sum;
    z[0] = y[0];
    z[1] = y[1];
    z[2] = y[2];
    z[3] = y[3];
}}
#else
typedef struct {{
    redy_real row0, row1, row2, row3;
}} redy_four;
static inline void redy_add(redy_four *sum, const redy_four *weight, redy_real value)
{{
    sum->row0 += weight->row0 * value;
    sum->row1 += weight->row1 * value;
    sum->row2 += weight->row2 * value;
    sum->row3 += weight->row3 * value;
}}
static inline void redy_store(redy_real *z, const redy_four *sum, uint32_t relu)
{{
    z[0] = relu && !(sum->row0 > 0) ? 0 : sum->row0;
    z[1] = relu && !(sum->row1 > 0) ? 0 : sum->row1;
    z[2] = relu && !(sum->row2 > 0) ? 0 : sum->row2;
    z[3] = relu && !(sum->row3 > 0) ? 0 : sum->row3;
}}
#endif
"""

LAYERS = """
/* A program is, per layer: relu, blocks of four rows, columns, the first block in the pool, its places. A block holds
 * four biases and then four weights for each column; column j reads values[places[j]]. Two blocks are computed at a
 * time, since the sums of one would wait for their own last additions; a last block alone is computed twice. The values
 * of the layers are written from z on; returns those of the last. */
static const redy_real *redy_layers(const redy_real *values, redy_real *z, const uint32_t *at, const redy_four *pool,
                                    const redy_index *places)
{{
    uint32_t layers, i, j;
    for (layers = *at++; layers > 0; layers--, at += 5) {{
        const uint32_t relu = at[0], blocks = at[1], columns = at[2];
        const redy_four *weight = pool + at[3];
        const redy_index *place = places + at[4];
        for (i = 0; i < blocks; i += 2, z += 8, weight += 2 * (1 + columns)) {{
            const redy_four *next = i + 1 < blocks ? weight + 1 + columns : weight;
            redy_four sum = *weight, other = *next;
            for (j = 0; j < columns; j++) {{
                redy_add(&sum, weight + 1 + j, values[place[j]]);
                redy_add(&other, next + 1 + j, values[place[j]]);
            }}
            redy_store(z, &sum, relu);
            redy_store(z + 4, &other, relu);
        }}
        z -= blocks & 1 ? 4 : 0;
    }}
    return z - 4 * at[-4];
}}
"""

FOLDED = """
{scope}int {evaluate}(const redy_real x[{inputs}], redy_real y[{outputs}])
{{
    union {{
        redy_real values[{values}];
        redy_four aligned;
    }} room;
    const int slice = {slice}(x);
    const redy_real *last;
    uint32_t i;
    if (slice < 0)
        return -1;
{decided}    for (i = 0; i < {inputs}; i++)
        room.values[i] = x[i];
    last = redy_layers(room.values, room.values + {first}, programs + starts[slice], pool, places);
    for (i = 0; i < {outputs}; i++)
        y[i] = last[i];
    return slice;
}}
"""

DECIDED = """\
    if (winner[slice] >= 0) {{
        for (i = 0; i < {outputs}; i++)
            y[i] = i == (uint32_t)winner[slice] ? {won} : {lost};
        return slice;
    }}
"""

SHARED = """
/* The living ones of four rows, by their bits: where, and how many. */
static const uint8_t where[16][4] = {{
    {{0, 0, 0, 0}}, {{0, 0, 0, 0}}, {{1, 0, 0, 0}}, {{0, 1, 0, 0}}, {{2, 0, 0, 0}}, {{0, 2, 0, 0}}, {{1, 2, 0, 0}},
    {{0, 1, 2, 0}}, {{3, 0, 0, 0}}, {{0, 3, 0, 0}}, {{1, 3, 0, 0}}, {{0, 1, 3, 0}}, {{2, 3, 0, 0}}, {{0, 2, 3, 0}},
    {{1, 2, 3, 0}}, {{0, 1, 2, 3}}}};
static const uint8_t many[16] = {{0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4}};

/* The program is, per layer: relu, blocks of four rows, columns, the first block in the pool, terms, rows, and per term
 * the value that it reads and its first column. A block holds four biases and then four weights for each column. The
 * rows of a layer with relu are sorted: place[] says where the units stand, in their own order, so that those that live
 * in many slices share blocks. A mask has for each such layer one bit a unit, in their own order, the lowest first, set
 * if it lives, and one bit a block, set if any of its units lives. living[] lists the places of living units, in the
 * order of the units; no others are read, and blocks without any are left out.{line_note} */
{scope}int {evaluate}(const redy_real x[{inputs}], redy_real y[{outputs}])
{{
    union {{
        redy_real raw[{room}];
        redy_four aligned;
    }} room;
    redy_real values[{values}];
    redy_real *source[{steps} + 1];
    redy_index living[{values}], busy[{values}], *column[{steps} + 1];
    uint32_t size[{steps} + 1], step, i, j, t, end = {first}{line_names};
    const int slice = {slice}(x);
    const uint32_t *at = program;
    const redy_index *place = places;
    const uint8_t *mask;
    if (slice < 0)
        return -1;
{decided}    mask = masks + (uint32_t)slice_mask[slice] * {mask_bytes}u;
{from_line}    for (i = 0; i < {inputs}; i++) {{
        values[i] = x[i];
        living[i] = (redy_index)i;
    }}
    source[0] = values;
    column[0] = living;
    size[0] = {inputs};
    for (step = 1; step <= {steps}; step++, at += 6 + 2 * at[4]) {{
        const uint32_t relu = at[0], blocks = at[1];
        redy_real *z = values + end;
        redy_index *row = living + end;
        uint32_t alive = 0, count = 0;
        if (relu) {{
            for (i = 0; i < 4 * blocks; i += 4) {{
                const uint32_t bits = (uint32_t)mask[i >> 3] >> (i & 4) & 15;
                const uint8_t *on = where[bits];
                row[alive] = place[i + on[0]];
                row[alive + 1] = place[i + on[1]];
                row[alive + 2] = place[i + on[2]];
                row[alive + 3] = place[i + on[3]];
                alive += many[bits];
            }}
            mask += (blocks + 1) >> 1;
            for (i = 0; i < blocks; i++) {{
                busy[count] = (redy_index)i;
                count += (uint32_t)mask[i >> 3] >> (i & 7) & 1;
            }}
            mask += (blocks + 7) >> 3;
            place += 4 * blocks;
        }} else {{
            for (; alive < 4 * blocks; alive++)
                row[alive] = (redy_index)alive;
            for (; count < blocks; count++)
                busy[count] = (redy_index)count;
        }}
        busy[count] = busy[count > 0 ? count - 1 : 0];
        for (i = 0; i < count; i += 2) {{
            const redy_four *one = pool + at[3] + busy[i] * (1 + at[2]);
            const redy_four *two = pool + at[3] + busy[i + 1] * (1 + at[2]);
            redy_four sum = *one++, other = *two++;
            for (t = 0; t < at[4]; t++) {{
                const uint32_t from = at[6 + 2 * t], first = at[7 + 2 * t], columns = size[from];
                const redy_index *c = column[from];
                const redy_real *value = source[from];
                for (j = 0; j < columns; j++) {{
                    redy_add(&sum, one + first + c[j], value[j]);
                    redy_add(&other, two + first + c[j], value[j]);
                }}
            }}
            redy_store(room.raw + 4 * busy[i], &sum, relu);
            redy_store(room.raw + 4 * busy[i + 1], &other, relu);
{sums}        }}
        for (i = 0; i < alive; i++)
            z[i] = room.raw[row[i]];
{lines}        source[step] = z;
        column[step] = row;
        size[step] = relu ? alive : at[5];
        end += 4 * blocks;
    }}
    for (i = 0; i < {outputs}; i++)
        y[i] = source[{steps}][i];
    return slice;
}}
"""

FROM_LINE = """\
    line = first_line[slice_mask[slice]];
    last_line = first_line[slice_mask[slice] + 1];
"""

SUMS = """\
            redy_store(room.raw + {widest} + 4 * busy[i], &sum, 0);
            redy_store(room.raw + {widest} + 4 * busy[i + 1], &other, 0);
"""

LINES = """\
        for (; line < last_line && line_step[line] == step; line++) {{
            i = line_unit[line];
            z[i] = line_slope[line] * room.raw[{widest} + row[i]] + line_intercept[line];
        }}
"""

FRONT = """
/* What comes before the layer whose values are cut. Returns whether x lies in the box. */
static int redy_front(const redy_real x[{raw}], redy_real hidden[{inputs}])
{{
    union {{
        redy_real values[{front_values}];
        redy_four aligned;
    }} room;
    const redy_real *last;
    uint32_t i;
    for (i = 0; i < {raw}; i++) {{
        if (!(x[i] >= front_lower[i] && x[i] <= front_upper[i]))
            return 0;
        room.values[i] = x[i];
    }}
    last = redy_layers(room.values, room.values + {front_first}, front_program, front_pool, front_places);
    for (i = 0; i < {inputs}; i++)
        hidden[i] = last[i];
    return 1;
}}

int redy_slice(const redy_real x[{raw}])
{{
    redy_real hidden[{inputs}];
    return redy_front(x, hidden) ? {slice}(hidden) : -1;
}}

int redy_evaluate(const redy_real x[{raw}], redy_real y[{outputs}])
{{
    redy_real hidden[{inputs}];
    return redy_front(x, hidden) ? {evaluate}(hidden, y) : -1;
}}
"""
