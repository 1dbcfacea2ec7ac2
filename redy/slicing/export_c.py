"""A family as one self-contained C99 file: no heap, no library, no recursion; memory is a few buffers on the stack.

Sums are formed in the order of `redy.slicing.program`, so the outputs are those of `Family.evaluate` bit for bit, as
long as the compiler neither contracts a * b + c into one rounding (`-std=c99`, or `-ffp-contract=off`) nor reorders
sums (no `-ffast-math`), and evaluates in the type of the weights (FLT_EVAL_METHOD 0: every target but the old x87).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from redy.model import Box
from redy.slicing import c_templates
from redy.slicing.archive import Pool, pack_programs
from redy.slicing.cuts import GridCut, TreeCut
from redy.slicing.export_onnx import round_up
from redy.slicing.lines import by_layer
from redy.slicing.masks import unpack
from redy.slicing.program import Program, Step, Weights, living
from redy.version import __version__

if TYPE_CHECKING:
    from redy.slicing.family import Family, Form


def c_source(family: Family, form: Form | None = None) -> str:
    """The C99 file of a family in one of its forms.

    Of a family that is cut on a hidden layer it holds the dense part before that layer, too; where that is not dense
    the functions take the hidden values instead of the model's input, and the file says so.
    """
    chosen = form or family.form
    front = None if family.front is None else family.front.program
    inputs, apart = family.whole.inputs, family.front is not None and front is None
    names = {
        "version": __version__,
        "slices": len(family),
        "form": chosen,
        "raw": inputs if front is None else front.inputs,
        "inputs": inputs,
        "first": _whole_blocks(inputs),
        "outputs": family.whole.steps[-1].bias.size,
        "real": "float" if family.whole.dtype == np.float32 else "double",
        "scope": "" if front is None else "static ",
        "slice": "redy_slice" if front is None else "redy_slice_behind",
        "evaluate": "redy_evaluate" if front is None else "redy_evaluate_behind",
        "note": f"\n * x holds the values of the layer {family.network.input.name}, not the model's input."
        if apart
        else "",
    }
    tables, sizes = _shared(family) if chosen == "shared" else _folded(family)
    winner, names["decided"] = _decided(family, names)
    lines, texts = _line_tables(family) if chosen == "shared" else ([], {})
    names |= texts
    tables += [winner, *lines]
    before, front_sizes = ([], {}) if family.front is None or front is None else _front(family.front.box, front)
    largest = max(sizes["values"], front_sizes.get("front_values", 0))
    names |= {"index": f"{np.min_scalar_type(largest).name}_t", **sizes, **front_sizes}
    layers = chosen == "folded" or front is not None
    parts = [
        c_templates.HEAD.format(**names),
        _cut(family, names),
        c_templates.FOUR.format(**names),
        *tables,
        c_templates.LAYERS.format(**names) if layers else "",
        (c_templates.SHARED if chosen == "shared" else c_templates.FOLDED).format(**names),
        *before,
        "" if front is None else c_templates.FRONT.format(**names),
        c_templates.MAIN.format(**names),
    ]
    return "".join(parts)


def _decided(family: Family, names: dict[str, Any]) -> tuple[str, str]:
    """The winners of a family that keeps the decision alone, and the code that asks them; nothing for others."""
    if family.winner is None:
        return "", ""
    constants = family.constants
    values = {"won": int(constants[0, 0]), "lost": 1 - int(constants[0, 0])}
    return _array("int32_t", "winner", family.winner), c_templates.DECIDED.format(**names, **values)


def _line_tables(family: Family) -> tuple[list[str], dict[str, str]]:
    """The tables of the lines in the shared form, and the code that reads them; nothing where there are none."""
    if family.lines is None or not len(family.lines):
        return [], {"from_line": "", "line_names": "", "line_note": "", "lines": "", "sums": ""}
    steps = [number for number, step in enumerate(family.whole.steps, start=1) if step.relu]
    number, place = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
    for mask in range(len(family.masks)):
        alive = living(family.network, family.whole, family.codes(mask))
        for step, (units, _) in zip(steps, by_layer(family.network, family.mask_lines(mask)), strict=True):
            number.append(np.full(len(units), step))
            place.append(np.searchsorted(alive[step], units))
    table = family.lines.table
    tables = [
        _array("uint32_t", "first_line", family.lines.starts),
        _array("redy_index", "line_step", np.concatenate(number)),
        _array("redy_index", "line_unit", np.concatenate(place)),
        _array("redy_real", "line_slope", table["slope"]),
        _array("redy_real", "line_intercept", table["intercept"]),
    ]
    note = "\n * Units with a line, counted among the living ones of their layer, get it in place of the ReLU."
    widest = _widest(family.whole)
    code = {
        name: text.format(widest=widest) for name, text in (("lines", c_templates.LINES), ("sums", c_templates.SUMS))
    }
    code["from_line"] = c_templates.FROM_LINE
    return tables, {**code, "line_names": ", line, last_line", "line_note": note}


def _shared(family: Family) -> tuple[list[str], dict[str, int]]:
    """The tables of the shared form, and its sizes.

    Rows are sorted by the number of slices in which they live, so that few blocks have any row to compute.
    """
    whole, units = family.whole, unpack(family.masks, family.network.units) != 0
    often = np.bincount(family.slice_mask, minlength=len(units)) @ units
    ends, kept = _ends(family), [step.relu for step in whole.steps]
    order = [np.arange(size) for size in (whole.inputs, *(step.bias.size for step in whole.steps))]
    for k, mine in zip(np.flatnonzero(kept), np.split(often, ends), strict=False):
        order[k + 1] = np.argsort(-mine, kind="stable")
    pool, table, first = list[Weights](), list[int](), 0
    for number, step in enumerate(whole.steps, 1):
        weights = tuple(w[np.ix_(order[number], order[s])] for s, w in zip(step.sources, step.weights, strict=True))
        blocks = _blocks(Step(step.sources, weights, step.bias[order[number]], step.relu))
        columns = np.cumsum([0, *(weight.shape[1] for weight in step.weights)])
        table += [int(step.relu), len(blocks), int(columns[-1]), first, len(step.sources), step.bias.size]
        for source, column in zip(step.sources, columns, strict=False):
            table += [source, int(column)]
        pool.append(blocks.reshape(-1, BLOCK))
        first += len(pool[-1])
    bits, places = _masks(units, ends, [mine for mine, relu in zip(order[1:], kept, strict=True) if relu])
    tables = [
        _array("uint32_t", "slice_mask", family.slice_mask),
        _array("uint8_t", "masks", bits.ravel()),
        _array("redy_index", "places", places),
        _array("uint32_t", "program", np.array(table)),
        _fours(np.concatenate(pool)),
    ]
    widest = _widest(whole)
    values = sum(_whole_blocks(mine.size) for mine in order) + BLOCK
    # Lines are of sums, which are then kept beside the values.
    room = {"values": values, "room": widest if family.lines is None or not len(family.lines) else 2 * widest}
    return tables, {"steps": len(whole.steps), "mask_bytes": bits.shape[1], **room}


def _widest(program: Program) -> int:
    """Room for the values of the largest layer."""
    return max(_whole_blocks(step.bias.size) for step in program.steps)


def _masks(
    units: NDArray[np.bool_], ends: list[int], order: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Per mask its bits (masks, bytes), layer by layer of units and of blocks; and the place of every unit."""
    masks, places = [np.zeros((len(units), 0), dtype=np.uint8)], [np.zeros(0, dtype=np.int64)]
    for mine, sort in zip(np.split(units, ends, axis=1), order, strict=False):
        missing = _whole_blocks(sort.size) - sort.size
        busy = np.pad(mine[:, sort], ((0, 0), (0, missing))).reshape(len(units), -1, BLOCK).any(axis=2)
        masks += [np.packbits(bits, axis=1, bitorder="little") for bits in (mine, busy)]
        places.append(np.pad(np.argsort(sort), (0, missing)))
    return np.concatenate(masks, axis=1), np.concatenate(places)


def _ends(family: Family) -> list[int]:
    """Where the units of each activation but the last end."""
    sizes = [step.bias.size for step in family.whole.steps if step.relu]
    return [int(end) for end in np.cumsum(sizes)[:-1]]


def _folded(family: Family) -> tuple[list[str], dict[str, int]]:
    """The tables of the folded form, and its sizes.

    The terms of a layer stand side by side and its rows in blocks of four, so that compilers use vectors although every
    sum keeps its order, and a layer is one loop however many values it reads.
    """
    programs = (family.mask_program(mask, "folded") for mask in range(len(family.masks)))
    starts, table, places, pool, values = _layers(programs, family.whole.dtype)
    tables = [
        _array("uint32_t", "starts", np.array(starts)[family.slice_mask]),
        _array("uint32_t", "programs", np.array(table)),
        _array("redy_index", "places", places),
        _fours(pool),
    ]
    return tables, {"values": values}


def _front(box: Box, program: Program) -> tuple[list[str], dict[str, int]]:
    """The tables of the part before a hidden layer, and its sizes."""
    _, table, places, pool, values = _layers([program], program.dtype)
    tables = [
        _array("redy_real", "front_lower", box.lower.ravel().astype(program.dtype)),
        _array("redy_real", "front_upper", box.upper.ravel().astype(program.dtype)),
        _array("uint32_t", "front_program", np.array(table)),
        _array("redy_index", "front_places", places),
        _fours(pool, "front_pool"),
    ]
    return tables, {"front_values": values, "front_first": _whole_blocks(program.inputs)}


def _layers(
    programs: Iterable[Program], dtype: np.dtype[Any]
) -> tuple[list[int], list[int], NDArray[Any], Weights, int]:
    """Programs as where each starts, their numbers, the places that columns read, the blocks, and values at most."""
    pool, places, table, starts, most = Pool(), Pool(), list[int](), list[int](), 0
    for program in programs:
        starts.append(len(table))
        table.append(len(program.steps))
        begin, end = [0], _whole_blocks(program.inputs)
        for step in program.steps:
            read = [begin[s] + np.arange(w.shape[1]) for s, w in zip(step.sources, step.weights, strict=True)]
            place = np.concatenate([np.zeros(0, dtype=np.int64), *read])
            blocks = _blocks(step)
            table += [int(step.relu), len(blocks), place.size, pool.place(blocks) // BLOCK, places.place(place)]
            begin.append(end)
            end += BLOCK * len(blocks)
        most = max(most, end)
    # A last block alone is written once more, behind itself.
    return starts, table, places.array(np.int64), pool.array(dtype).reshape(-1, BLOCK), most + BLOCK


BLOCK = 4


def _whole_blocks(size: int) -> int:
    """Room for so many values: a multiple of four, so that what follows is aligned."""
    return -(-size // BLOCK) * BLOCK


def _blocks(step: Step) -> Weights:
    """Bias and weights of a layer as (blocks, 1 + columns, rows of a block); added rows are 0."""
    matrix = np.concatenate([step.bias[:, None], *step.weights], axis=1)
    filled = np.pad(matrix, ((0, -len(matrix) % BLOCK), (0, 0)))
    return np.ascontiguousarray(filled.reshape(-1, BLOCK, filled.shape[1]).transpose(0, 2, 1))


def program_source(family: Family, form: Form = "folded") -> str:
    """The original network exported the same way: one slice, from which nothing is removed."""
    from redy.slicing.family import Family as Kind  # noqa: PLC0415 - family imports the exports when it needs them

    cut = GridCut.of(family.cut.box, (1,) * family.cut.box.size)
    masks = np.full((1, family.masks.shape[1]), 0xFF, dtype=np.uint8)
    one = np.ones(1, dtype=bool)
    arrays = pack_programs([family.whole])
    whole = Kind(family.original, cut, masks, np.zeros(1, dtype=np.int64), one, "folded", arrays)
    return c_source(whole, form)


def _cut(family: Family, names: dict[str, Any]) -> str:
    cut, dtype = family.cut, family.whole.dtype
    lower, upper = (
        family.limits if family.front is None else (end.ravel().astype(dtype) for end in (cut.box.lower, cut.box.upper))
    )
    limits = _array("redy_real", "lower", lower) + _array("redy_real", "upper", upper)
    if isinstance(cut, GridCut):
        faces = [round_up(face, dtype) for face in cut.faces]
        first = np.concatenate([[0], np.cumsum([face.size for face in faces])])
        tables = _array("int32_t", "first_face", first) + _array("redy_real", "faces", np.concatenate(faces))
        code = c_templates.GRID.format(inside=c_templates.INSIDE.format(**names), **names)
    else:
        assert isinstance(cut, TreeCut)
        tables = _array("int32_t", "axes", cut.axis) + _array("redy_real", "faces", round_up(cut.face, dtype))
        tables += _array("int32_t", "children", cut.children.ravel())
        code = c_templates.TREE.format(
            inside=c_templates.INSIDE.format(**names), root=0 if len(cut.axis) else -1, **names
        )
    return limits + tables + code


def _array(kind: str, name: str, values: NDArray[Any]) -> str:
    """A constant table; an empty one gets one element that nothing reads, since C has no empty arrays."""
    items = [_number(value) for value in (values if len(values) else np.zeros(1, dtype=values.dtype))]
    return f"static const {kind} {name}[{len(items)}] = {{\n{_lines(items)}}};\n"


def _fours(pool: Weights, name: str = "pool") -> str:
    """A pool of weights, (n, 4)."""
    items = ["{" + ",".join(map(_number, four)) + "}" for four in pool]
    return f"static const redy_four {name}[{len(items)}] = {{\n{_lines(items)}}};\n"


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
