"""What a reduction did, as the JSON document that docs/report.md describes and report.schema.json checks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator

from redy.errors import InputError
from redy.formats.files import read_text
from redy.model import Activate, Affine, Array, Box, Network, Proved
from redy.model.network import node_parameters
from redy.reduction import Measured, Reduction
from redy.version import __version__

MOST_NUMBERS = 1_000_000
"""Numbers of the points in the document, at most; more are left out."""
MOST_BOUNDS = 100_000
"""Elements of activations whose bounds the document lists, at most."""
FORMAT = 1
"""Version of the document; a change that breaks readers raises it."""


@dataclass(frozen=True, slots=True)
class File:
    """A model file: its path, SHA-256 in hexadecimal, and size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One activation layer before and after: units, and the parameters and multiply-adds of what feeds it."""

    name: str
    units: int
    inactive: int
    active: int
    replaced: int
    undecided: int
    kept: int
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int


def schema() -> dict[str, Any]:
    """The JSON Schema of the document."""
    text = resources.files("redy.report").joinpath("report.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def read_report(path: Path) -> list[dict[str, Any]]:
    """The report documents of a JSON file that `redy reduce --report` wrote: one, or one for each box.

    Raises:
        InputError: the file cannot be read, is no JSON, or is no report.
    """
    how = "give the JSON file that `redy reduce --report` writes"
    try:
        loaded = json.loads(read_text(path, "a report", how))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); {how}") from error
    documents = loaded if isinstance(loaded, list) else [loaded]
    if not documents:
        raise InputError(f"{path}: holds no report; {how}")
    for document in documents:
        _check(document, path, how)
    return documents


def _check(document: object, path: Path, how: str) -> None:
    """Raise InputError unless every key that the pages read is there, as the schema says."""
    if isinstance(document, dict) and document.get("format") not in (None, FORMAT):
        raise InputError(f"{path}: has format {document['format']}; this redy reads format {FORMAT}")
    errors = sorted(Draft202012Validator(schema()).iter_errors(document), key=lambda error: len(error.absolute_path))
    if errors:
        place = "/".join(str(part) for part in errors[0].absolute_path) or "the document"
        raise InputError(f"{path}: is no report of a reduction ({place}: {errors[0].message[:200]}); {how}")


def report(
    reduction: Reduction,
    *,
    original: File | None = None,
    reduced: File | None = None,
    measured: Measured | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """The document for one reduction; files, measurements and command are null where there are none."""
    return {
        "format": FORMAT,
        "redy": __version__,
        "original": _network(reduction.original, original, reduction.original_digest),
        "reduced": _network(reduction.network, reduced, None),
        "box": _box(reduction.box),
        "options": _options(reduction),
        "guarantee": _guarantee(reduction),
        "layers": [_as_dict(row) for row in layer_rows(reduction)],
        "findings": [
            {
                "node": finding.unit.node,
                "index": finding.unit.index,
                "kind": finding.kind,
                "slope": finding.line.slope,
                "intercept": finding.line.intercept,
                "method": finding.verdict.proof.method if isinstance(finding.verdict, Proved) else "",
            }
            for finding in reduction.findings
        ],
        "undecided": [{"node": unit.node, "index": unit.index} for unit in reduction.undecided],
        "engine": _plain(reduction.stats),
        "seconds": {name: float(value) for name, value in reduction.timings.items()},
        "measured": None if measured is None else _as_dict(measured),
        "notes": [*_nothing_removed(reduction), *reduction.notes],
        "bounds": _bounds(reduction),
        "command": command,
    }


def _nothing_removed(reduction: Reduction) -> list[str]:
    """Why a reduction without findings has none, and what to try."""
    original, small = reduction.original, reduction.network
    if reduction.findings or small.units < original.units or small.parameters < original.parameters:
        return []
    limited = "--effort thorough" if reduction.options.time_limit is None else "a longer --time-limit"
    if not original.units:
        why, how = "the network has no activation", "redy simplify, which needs none"
    elif reduction.undecided:
        count = len(reduction.undecided)
        why = f"{count:,} units were undecided when the search reached its limits"
        how = "--engine auto" if reduction.options.engine == "linear" else f"{limited}, or a smaller box"
    elif any(" undone: " in note for note in reduction.notes):
        why, how = "no guarantee of a smaller file was proved (see the notes)", f"{limited}, or a smaller box"
    else:
        weaker = "" if reduction.options.preserve != "outputs" else ", or --preserve decision or tolerance"
        why = "inputs of the box reach every piece of each activation"
        how = f"a smaller box, redy slice, which cuts the box into slices{weaker}"
    return [f"Nothing was proved or removed, because {why}; try {how}."]


def _bounds(reduction: Reduction) -> dict[str, dict[str, list[float | None]]] | None:
    """Sound bounds of every unit's pre-activation (of a channel: over its positions); null ends are infinite."""
    original = reduction.original
    if reduction.bounds is None or original.units > MOST_BOUNDS:
        return None
    found = {}
    for node in original.activations:
        if node.name in reduction.bounds.intervals:
            lower, upper = reduction.bounds.intervals[node.name]
            if _channels(node):
                axes = tuple(range(1, lower.ndim))
                lower, upper = lower.min(axis=axes), upper.max(axis=axes)
            found[node.name] = {"lower": _finite(lower), "upper": _finite(upper)}
    return found


def _finite(values: Array) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values.ravel()]


def _channels(node: Activate) -> bool:
    """Whether the units of an activation are channels."""
    return len(node.shape) > 1 and math.prod(node.shape[:-1]) != 1


def layer_rows(reduction: Reduction) -> list[LayerRow]:
    """One row per activation of the original, then one for everything else (outputs, other arithmetic)."""
    original, small = reduction.original, reduction.network
    rows = [_row(reduction, node) for node in original.activations]
    rest = LayerRow(
        name="other",
        units=0,
        inactive=0,
        active=0,
        replaced=0,
        undecided=0,
        kept=0,
        parameters_before=original.parameters - sum(row.parameters_before for row in rows),
        parameters_after=small.parameters - sum(row.parameters_after for row in rows),
        macs_before=original.macs - sum(row.macs_before for row in rows),
        macs_after=small.macs - sum(row.macs_after for row in rows),
    )
    return [*rows, rest]


def _row(reduction: Reduction, node: Activate) -> LayerRow:
    found = [finding for finding in reduction.findings if finding.unit.node == node.name]
    phase = [finding for finding in found if finding.kind == "phase"]
    before = _arithmetic(reduction.original, [node.name])
    after = _arithmetic(reduction.network, [node.name, f"{node.name}_units"], beside=f"{node.name}_linear")
    channels = _channels(node)
    left = [n for n in reduction.network.activations if n.name in (node.name, f"{node.name}_units")]
    return LayerRow(
        name=node.name,
        units=node.shape[0] if channels else math.prod(node.shape),
        inactive=sum(finding.line.slope == 0 for finding in phase),
        active=sum(finding.line.slope != 0 for finding in phase),
        replaced=len(found) - len(phase),
        undecided=sum(unit.node == node.name for unit in reduction.undecided),
        kept=sum(n.shape[0] if channels else math.prod(n.shape) for n in left),
        parameters_before=before[0],
        parameters_after=after[0],
        macs_before=before[1],
        macs_after=after[1],
    )


def _arithmetic(network: Network, activations: list[str], beside: str = "") -> tuple[int, int]:
    """Parameters and multiply-adds of the affine nodes that feed the activations, and of the one named `beside`."""
    sources = {node.source for node in network.activations if node.name in activations} | {beside}
    parameters = macs = 0
    for node in network.nodes:
        if isinstance(node, Affine) and node.name in sources:
            parameters += node_parameters(node)
            macs += sum(term.operator.macs for term in node.terms)
    return parameters, macs


def _network(network: Network, file: File | None, digest: str | None) -> dict[str, Any]:
    return {
        "file": None if file is None else file.path,
        "sha256": None if file is None else file.sha256,
        "bytes": None if file is None else file.size,
        "digest": digest,
        "units": network.units,
        "parameters": network.parameters,
        "multiply_adds": network.macs,
    }


def _box(box: Box) -> dict[str, Any]:
    return {"digest": box.digest, "lower": box.lower.tolist(), "upper": box.upper.tolist()}


def _options(reduction: Reduction) -> dict[str, Any]:
    options = reduction.options
    reference = options.relative_to
    return {
        "preserve": options.preserve,
        "criteria": list(options.criteria),
        "engine": options.engine,
        "solver": options.solver,
        "trust_solver": options.trust,
        "tolerance": options.tolerance,
        "relative_to": reference if reference is None or reference == "box" else _box(reference),
        "winner": options.winner,
        "margin": options.margin,
        "refit": options.refit,
        "effort": options.effort,
        "time_limit": options.time_limit,
        "seed": options.seed,
    }


def _guarantee(reduction: Reduction) -> dict[str, Any]:
    guarantee = reduction.guarantee
    return {
        "statement": guarantee.statement,
        "preserve": guarantee.preserve,
        "error": _listed(guarantee.error),
        "found": _listed(guarantee.found),
        "found_at": _listed(_told(guarantee.points)),
        "trusted": list(guarantee.trusted),
    }


def _told(points: Mapping[str, Array]) -> Mapping[str, Array]:
    """The points, unless they are too many to be read."""
    return points if sum(value.size for value in points.values()) <= MOST_NUMBERS else {}


def _listed(errors: Mapping[str, Array] | None) -> dict[str, Any] | None:
    return None if errors is None else {name: np.asarray(error).tolist() for name, error in errors.items()}


def _as_dict(row: LayerRow | Measured) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


def _plain(value: object) -> object:
    """Numbers, texts, lists and objects only, so that it can be written as JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value
