"""Boxes of inputs from a file or from the command line: JSON, JSON lines, VNN-LIB."""

from __future__ import annotations

from pathlib import Path

from redy.errors import InputError
from redy.formats.boxes_json import boxes_from_json, boxes_from_json_lines
from redy.formats.files import read_text
from redy.formats.vnnlib import boxes_from_vnnlib
from redy.model.box import Box
from redy.model.network import Port


def read_boxes(source: str | Path, inputs: tuple[int, ...] | Port) -> list[Box]:
    """Every box that `source` holds, in its order; at least one.

    Args:
        source: the path of a JSON, JSON-lines (`.jsonl`) or VNN-LIB (`.vnnlib`) file, also compressed (`.gz`), or
            JSON text itself, which starts with `[` or `{`: `[-1, 1]` means every input in [-1, 1]. docs/boxes.md
            describes the forms.
        inputs: the network's input, or the shape of one input sample, without the batch axis. Where the input holds
            several inputs of the file, a box may be given for each, by its name.

    Raises:
        InputError: the source cannot be read, or does not hold boxes of this shape.
    """
    input_shape = inputs.shape if isinstance(inputs, Port) else inputs
    parts = {part.name: part.shape for part in inputs.parts} if isinstance(inputs, Port) else {}
    if isinstance(source, str) and source.lstrip().startswith(("[", "{")):
        return boxes_from_json(source, "inline box", input_shape, parts)
    path = Path(source)
    text = read_text(path, "a box", "give the path of a box file, or JSON such as [-1,1]")
    kind = path.with_suffix("").suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if kind == ".vnnlib":
        return boxes_from_vnnlib(text, str(path), input_shape)
    if kind == ".jsonl":
        return boxes_from_json_lines(text, str(path), input_shape, parts)
    return boxes_from_json(text, str(path), input_shape, parts)


def read_box(source: str | Path, inputs: tuple[int, ...] | Port) -> Box:
    """The one box that `source` holds; see `read_boxes`.

    Raises:
        InputError: the source cannot be read, or holds no or several boxes of this shape.
    """
    boxes = read_boxes(source, inputs)
    if len(boxes) > 1:
        raise InputError(
            f"{source}: holds {len(boxes)} boxes where one is needed; give one of them in a file of its own"
        )
    return boxes[0]
