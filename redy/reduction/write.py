"""Writing a reduction: the file that was proved, read back and compared with the original before it gets its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from redy.errors import CheckFailed, InputError
from redy.formats.files import file_digest, write_atomically
from redy.formats.onnx_read import read_network
from redy.formats.onnx_run import Session
from redy.formats.onnx_write import to_model
from redy.formats.reading.inputs import sizes
from redy.model.digest import network_digest
from redy.model.interface import with_shapes_of
from redy.questions.seen import sample_points
from redy.reduction.guarantee import rounding, unchanged
from redy.reduction.measure import Measured, measure
from redy.reduction.metadata import kept, metadata
from redy.reduction.problem import Reduction

POINTS = 10_000
"""Samples compared in onnxruntime, besides corners; fewer where a network is costly to evaluate."""
FEWEST_POINTS, POINT_MACS = 32, 20_000_000_000
"""Not fewer than so many, and multiply-adds that samples and corners may cost each."""


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """What was written.

    Attributes:
        reduction: the reduction as it stands in the file; where the original was copied, without findings.
        measured: what running both files in onnxruntime showed; None where it cannot run the original.
        copied: whether the file is a copy of the original.
    """

    reduction: Reduction
    measured: Measured | None
    copied: bool


def write_reduction(
    reduction: Reduction,
    path: str | os.PathLike[str],
    *,
    original: str | os.PathLike[str] | None = None,
    check: Callable[[Path], object] | None = None,
) -> Written:
    """Write the smaller network to `path`, with what was proved about it in its metadata.

    The file is written under a temporary name and read back; only if that is the network of the guarantee, bit for bit,
    and onnxruntime agrees up to rounding, it is renamed. Where no form is smaller than the original, that is copied.

    Args:
        reduction: as `reduce` gives it.
        path: where to.
        original: the file that the original was read from; its metadata, documentation and producer are kept. It is
            needed where the original itself is what is written.
        check: called with the temporary file before it is renamed (a certificate has its place here); an exception ends
            the writing.

    Raises:
        CheckFailed: the file is not what was proved, or onnxruntime shows another result; nothing was written.
        InputError: `path` cannot be written, or is the original; or `original` is not the network that was reduced.
    """
    source = None if original is None else Path(original)
    if source is not None and Path(path).exists() and source.samefile(path):
        raise InputError(f"{path}: is the original itself; choose another file")
    if (
        source is not None
        and network_digest(read_network(source, sizes(reduction.original.input))) != reduction.original_digest
    ):
        raise InputError(f"{source}: is not the network that was reduced; it has changed, or is another file")
    model = None if reduction.model is None else onnx.load_model_from_string(reduction.model)
    auto = reduction.options.layout == "auto"
    if model is not None and source is not None and auto and not _pays(model, onnx.load(source)):
        note = "no form is smaller than the original file, which was copied"
        reduction, model = _as_original(reduction, note), None
    data = _original(reduction, source) if model is None else _completed(reduction, model, source)
    measured: list[Measured | None] = []

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)
        read_back = with_shapes_of(
            read_network(temporary, sizes(reduction.original.input) if auto else None), reduction.original
        )
        if network_digest(read_back) != network_digest(reduction.network):
            raise CheckFailed(f"{path}: the file does not hold the network that was proved; nothing was written")
        measured.append(_compared(reduction, source, temporary, str(path)))
        if check is not None:
            check(temporary)

    write_atomically(path, write)
    return Written(reduction, measured[0], model is None)


def _as_original(reduction: Reduction, note: str) -> Reduction:
    network = reduction.original
    return replace(
        reduction,
        network=network,
        model=None,
        findings=(),
        units={},
        refit=(),
        facts=None,
        guarantee=unchanged(network, reduction.box, reduction.options.preserve),
        notes=(*reduction.notes, note),
    )


def _original(reduction: Reduction, source: Path | None) -> bytes:
    """The original's own bytes, with its external data inside; without its file the network as redy writes it."""
    if source is None:
        return bytes(to_model(reduction.original).SerializeToString(deterministic=True))
    content = source.read_bytes()
    model = onnx.load_model_from_string(content)
    if not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        return content
    try:
        return bytes(onnx.load(source).SerializeToString())
    except ValueError as error:  # more than protobuf takes
        raise InputError(f"{source}: no form is smaller, and it is too large to be copied into one file") from error


def _completed(reduction: Reduction, model: onnx.ModelProto, source: Path | None) -> bytes:
    """The file with metadata, and with what the original's file says about itself."""
    entries: dict[str, str] = {}
    if source is not None:
        before = onnx.load(source, load_external_data=False)
        entries = kept((entry.key, entry.value) for entry in before.metadata_props)
        for name in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
            setattr(model, name, getattr(before, name))
        model.graph.name, model.graph.doc_string = before.graph.name or model.graph.name, before.graph.doc_string
    digest = None if source is None else file_digest(source)
    onnx.helper.set_model_props(model, {**entries, **metadata(reduction, digest)})
    return bytes(model.SerializeToString(deterministic=True))


def _pays(model: onnx.ModelProto, original: onnx.ModelProto) -> bool:
    """Whether a model has fewer bytes of weights than the original, or as many and fewer nodes."""
    after, before = ((_weight_bytes(m), len(m.graph.node)) for m in (model, original))
    return after < before


def _weight_bytes(model: onnx.ModelProto) -> int:
    tensors = list(model.graph.initializer)
    tensors += [
        a.t for node in model.graph.node if node.op_type == "Constant" for a in node.attribute if a.HasField("t")
    ]
    return sum(_bytes(tensor) for tensor in tensors)


def _bytes(tensor: onnx.TensorProto) -> int:
    return int(np.prod(tensor.dims, dtype=np.int64)) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _compared(reduction: Reduction, source: Path | None, written: Path, target: str) -> Measured | None:
    options = reduction.options
    most = max(FEWEST_POINTS, POINT_MACS // max(1, reduction.original.macs))
    points = sample_points(reduction.box, min(POINTS, most), min(options.corners, most), options.seed + 1)
    dtype = reduction.original.input.dtype
    before = to_model(reduction.original) if source is None else source
    try:
        first = Session(before)
    except InputError:  # an operator that onnxruntime does not have in this type
        return None
    measured = measure(first, Session(written), reduction.box, points, dtype, options.winner)
    allowed = rounding(reduction.original) * max(measured.scale, 1e-30)
    if options.preserve == "outputs" and not measured.deviation <= allowed:
        raise CheckFailed(
            f"{target}: in onnxruntime the reduced network differs from the original by {measured.deviation:.3g} "
            f"(outputs up to {measured.scale:.3g}); nothing was written"
        )
    return measured
