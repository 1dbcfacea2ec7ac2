"""The input of a network: the one of the file, or all of the file's inputs flattened, one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from redy.errors import InputError
from redy.formats.reading.casts import FLOATS
from redy.formats.reading.graph import SYMBOLIC_BATCH, Graph, Value
from redy.model import Port, Shape

_WHOLE: dict[int, str] = {
    TensorProto.UINT8: "uint8",
    TensorProto.INT8: "int8",
    TensorProto.UINT16: "uint16",
    TensorProto.INT16: "int16",
    TensorProto.UINT32: "uint32",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
}
WHOLE = frozenset(_WHOLE.values())
"""Types of whole numbers in which inputs are given; a box holds whole numbers among others."""
Shapes = Mapping[str, tuple[int, ...]]
"""Input name -> its shape in the file, batch axis included."""


def input_port(infos: list[ValueInfoProto], shapes: Shapes, taken: Iterable[str]) -> tuple[Port, tuple[int, ...]]:
    """The input port, and the batch sizes at which to try reading.

    Args:
        infos: the inputs of the file, without those that have a value in the file.
        shapes: shapes to use in place of those in the file.
        taken: names of the file.

    Raises:
        InputError: there is no input, an input is not of numbers, or a size is open.
    """
    if unknown := sorted(set(shapes) - {info.name for info in infos}):
        names = ", ".join(info.name for info in infos)
        raise InputError(f"has no input {unknown[0]!r} to give a shape to; its inputs are {names}")
    ports = [_port(info, shapes.get(info.name)) for info in infos]
    if not ports:
        raise InputError("the network has no input; every input has a value in the file")
    if len(ports) == 1:
        port = ports[0]
    else:
        name, known = "inputs", set(taken)
        while name in known:
            name += "_"
        port = _joined(ports, name)
    return port, (1,) if port.batch in {1, None} else (SYMBOLIC_BATCH, 1)


def _port(info: ValueInfoProto, given: tuple[int, ...] | None) -> Port:
    kind = info.type.tensor_type
    dtype = FLOATS.get(kind.elem_type) or _WHOLE.get(kind.elem_type)
    if dtype is None:
        found = helper.tensor_dtype_to_string(kind.elem_type).lower() if kind.elem_type else "no tensor"
        raise InputError(f"input {info.name!r} must hold numbers, it is {found}; remove it or give it a value")
    if not kind.HasField("shape") and given is None:
        raise InputError(f"input {info.name!r} has no shape; give one with --shape {info.name}=1,3,32,32")
    sizes = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim]
    if given is not None:
        if kind.HasField("shape") and (len(given) != len(sizes) or not all(map(_fits, sizes, given))):
            shown = ",".join(str(size or "?") for size in sizes)
            raise InputError(f"input {info.name!r} has the shape {shown}; --shape gives {','.join(map(str, given))}")
        sizes = list(given)
    for axis, size in enumerate(sizes[1:], start=1):
        if not isinstance(size, int) or size < 1:
            known = [str(n) if isinstance(n, int) and n > 0 else "?" for n in sizes[1:]]
            raise InputError(
                f"input {info.name!r} has no fixed size along axis {axis} ({size or '?'}); only the batch may be open; "
                f"give the sizes with --shape {info.name}={','.join(['1', *known])}"
            )
    inner: Shape = tuple(int(size) for size in sizes[1:] if isinstance(size, int))
    if sizes and (not isinstance(sizes[0], int) or sizes[0] <= 0):
        return Port(info.name, inner, dtype, sizes[0] if isinstance(sizes[0], str) else "batch")
    if len(sizes) > 1 and sizes[0] == 1:
        return Port(info.name, inner, dtype, 1)
    whole = (int(sizes[0]), *inner) if sizes and isinstance(sizes[0], int) else inner
    return Port(info.name, whole, dtype, None)


def _fits(size: int | str | None, given: int) -> bool:
    return not isinstance(size, int) or size <= 0 or size == given


def _joined(ports: list[Port], name: str) -> Port:
    """One flat input that holds the others."""
    batches = {port.batch for port in ports}
    if None in batches and all(batch in {1, None} for batch in batches):
        ports = [port if port.batch is None else replace(port, shape=(1, *port.shape), batch=None) for port in ports]
    elif any(isinstance(batch, str) for batch in batches) and not all(isinstance(batch, str) for batch in batches):
        fixed, open_ = (next(p.name for p in ports if isinstance(p.batch, str) is is_open) for is_open in (False, True))
        raise InputError(
            f"input {open_!r} has an open batch and input {fixed!r} has none; give the shape of {open_!r} with --shape"
        )
    dtypes = {port.dtype for port in ports}
    dtype = dtypes.pop() if len(dtypes) == 1 else "float64" if "float64" in dtypes else "float32"
    size = sum(math.prod(port.shape) for port in ports)
    return Port(name, (size,), dtype, ports[0].batch, tuple(ports))


def sizes(port: Port) -> dict[str, tuple[int, ...]]:
    """The sizes of every input of a port that is fixed as a whole, to read its file again with."""
    parts = port.parts or (port,)
    return {p.name: p.shape if p.batch is None else (p.batch, *p.shape) for p in parts if not isinstance(p.batch, str)}


def enter_inputs(graph: Graph, port: Port) -> None:
    """Every input of the file as a tensor of the graph."""
    value = Value(port.name, port.shape, port.batch is not None)
    if not port.parts:
        graph.tensors[port.name] = value
        graph.types[port.name] = port.dtype
    start = 0
    for part in port.parts:
        size = math.prod(part.shape)
        graph.own = {part.name}
        index = start + np.arange(size).reshape(part.shape)
        graph.tensors[part.name] = graph.moved(value, index, batched=value.batched, name=part.name)
        graph.types[part.name] = part.dtype
        start += size
