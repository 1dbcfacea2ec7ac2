"""What is stated about an ONNX export holds for its file: it is read back, and proved or compared before its rename."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx

from redy.errors import CheckFailed
from redy.formats.files import write_atomically
from redy.formats.onnx_read import read_network
from redy.formats.onnx_run import Session
from redy.formats.reading.inputs import sizes
from redy.model import Comparison, Proved, Within
from redy.model.digest import network_digest
from redy.questions.compare import Hints, prove_files
from redy.reduction.guarantee import rounding
from redy.reduction.metadata import claim_entries
from redy.slicing.export_onnx import family_model, slice_model
from redy.slicing.family import Family, Form
from redy.slicing.proof import known_phases, proved_error

COMPARED = 20_000
"""Slices, at most, at whose centre and corners the model of a whole family is compared with the family."""
CORNERS = 4


def write_slice(family: Family, index: int, path: str | os.PathLike[str], form: Form | None = None) -> None:
    """Write one slice as ONNX, with what was proved about the file in its metadata, for `redy verify`.

    The phases of units are those that the family states. A family that was written without a proof is compared only.

    Raises:
        InputError: `path` cannot be written, or there is no such slice.
        CheckFailed: the file is not proved to be within the family's statement; nothing was written.
    """
    model = slice_model(family, index, form)

    def write(temporary: Path) -> None:
        temporary.write_bytes(model.SerializeToString())
        if family.error is None:
            return
        claim, statement = _proved(family, index, temporary)
        entries = {entry.key: entry.value for entry in model.metadata_props}
        digest = network_digest(family.network)
        entries |= claim_entries(claim, statement, family.cut.cell(index), digest)
        onnx.helper.set_model_props(model, entries)
        temporary.write_bytes(model.SerializeToString())

    write_atomically(path, write)


def _proved(family: Family, index: int, file: Path) -> tuple[Comparison, str]:
    """The claim about the file of a slice, and the claim in words."""
    network, box = family.network, family.cut.cell(index)
    small = read_network(file, sizes(network.input))
    known = known_phases(network, box, family.codes(int(family.slice_mask[index])))
    where = "For every input of the box, in real arithmetic on the numbers in the two files,"
    failed = CheckFailed(f"slice {index}: the export is not proved to be what the family states; nothing was written")
    if family.winner is not None and family.decision is not None and family.winner[index] >= 0:
        # The mask of a constant says nothing of phases.
        hints = Hints(known_phases(network, box, None), winner=int(family.winner[index]))
        if not isinstance(prove_files(network, small, box, family.decision, hints), Proved):
            raise failed
        return family.decision, f"{where} {family.decision}."
    error = proved_error(network, small, box, known, family.tolerance)
    if not np.isfinite(error):
        raise failed
    claim = Within(np.full(sum(int(np.prod(port.shape)) for port in network.outputs), error))
    return claim, f"{where} every output differs from the original's by at most {error:.3g}."


def write_whole(family: Family, path: str | os.PathLike[str]) -> None:
    """Write the one ONNX model of a family; its file is compared with the family in every slice.

    Raises:
        InputError: `path` cannot be written.
        CheckFailed: onnxruntime shows another result; nothing was written.
    """
    model = family_model(family)

    def write(temporary: Path) -> None:
        temporary.write_bytes(model.SerializeToString())
        if family.front is None:
            _compare(family, temporary)

    write_atomically(path, write)


def _compare(family: Family, file: Path) -> None:
    rng, session = np.random.default_rng(0), Session(file)
    chosen = np.unique(np.linspace(0, len(family) - 1, min(COMPARED, len(family))).astype(np.int64))
    for part in np.array_split(chosen, -(-len(chosen) // 1000)):
        cells = [family.cut.cell(int(index)) for index in part]
        points = np.concatenate([np.concatenate([c.center[None], c.corners(CORNERS, rng)]) for c in cells])
        expected = family.evaluate(points, form="shared").astype(np.float64)
        (got,) = session.run_all(points)
        scale = max(float(np.abs(expected).max(initial=0.0)), 1e-30)
        if not np.abs(got.reshape(expected.shape) - expected).max(initial=0.0) <= rounding(family.network) * scale:
            raise CheckFailed(f"{file.name}: the model of the family does not compute the family; nothing was written")
