"""What a written file says about itself: where it comes from, and the claim that was proved about it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from redy.errors import InputError
from redy.model import Box, Comparison, SameWinner, Within
from redy.version import __version__

if TYPE_CHECKING:
    from redy.reduction.problem import Reduction

PREFIX = "redy."
"""Keys of redy; whoever rewrites a file drops those of the file it was made from, which hold no longer."""
_LARGEST_BOX = 4096
_MOST_UNITS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Stated:
    """The claim in a file.

    Attributes:
        claim: what was proved about the original and the file.
        box: the inputs; None where the file has only the digest of the box.
        box_digest: see `Box.digest`.
        original_digest: of the network that the claim starts from (`redy.model.digest`).
        version: of redy.
        units: activation of the file -> which units of the original stand in it; it makes the claim easier to prove.
    """

    claim: Comparison
    box: Box | None
    box_digest: str
    original_digest: str
    version: str
    units: Mapping[str, NDArray[np.int64]]


def metadata(reduction: Reduction, original_sha256: str | None) -> dict[str, str]:
    """The entries for `metadata_props`."""
    guarantee = reduction.guarantee
    entries = claim_entries(guarantee.claim, guarantee.statement, reduction.box, reduction.original_digest)
    units = {name: [int(k) for k in index] for name, index in reduction.units.items()}
    if sum(map(len, units.values())) <= _MOST_UNITS:
        entries["redy.units"] = json.dumps(units)
    if original_sha256 is not None:
        entries["redy.original.sha256"] = original_sha256
    return entries


def claim_entries(claim: Comparison, statement: str, box: Box, original_digest: str) -> dict[str, str]:
    """The entries that `redy verify` reads: a claim about a file and the network that it was made from.

    Args:
        claim: what was proved.
        statement: the claim in words.
        box: the inputs.
        original_digest: of the network (`redy.model.digest`).
    """
    entries = {
        "redy.version": __version__,
        "redy.original.digest": original_digest,
        "redy.box.digest": box.digest,
        "redy.claim": json.dumps(_as_json(claim)),
        "redy.guarantee": statement,
    }
    if box.size <= _LARGEST_BOX:
        entries["redy.box"] = json.dumps({"lower": box.lower.tolist(), "upper": box.upper.tolist()})
    return entries


def kept(entries: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The entries of a file that hold for whatever is made from it: all but those of redy."""
    return {key: value for key, value in entries if not key.startswith(PREFIX)}


def stated(entries: Mapping[str, str], where: str) -> Stated:
    """The claim in a file's metadata.

    Raises:
        InputError: there is none, or it cannot be read; the text begins with `where`.
    """
    if "redy.claim" not in entries:
        raise InputError(f"{where}: holds no claim of redy; give --bounds and --tolerance or --preserve")
    try:
        box = None
        if "redy.box" in entries:
            ends = json.loads(entries["redy.box"])
            box = Box(np.array(ends["lower"], dtype=np.float64), np.array(ends["upper"], dtype=np.float64))
        claim = _from_json(json.loads(entries["redy.claim"]))
        names = ("redy.box.digest", "redy.original.digest", "redy.version")
        texts = [entries[name] for name in names]
        units = json.loads(entries.get("redy.units", "{}")).items()
        standing = {str(name): np.array(index, dtype=np.int64) for name, index in units}
        return Stated(claim, box, texts[0], texts[1], texts[2], standing)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: its claim cannot be read ({error}); reduce the original again") from error


def _as_json(claim: Comparison) -> dict[str, Any]:
    if isinstance(claim, Within):
        return {"kind": "within", "tolerance": claim.tolerance.tolist()}
    return {"kind": "winner", "winner": claim.winner, "margin": claim.margin}


def _from_json(value: Mapping[str, Any]) -> Comparison:
    if value["kind"] == "within":
        return Within(np.array(value["tolerance"], dtype=np.float64))
    if value["kind"] == "winner" and value["winner"] in {"max", "min"}:
        return SameWinner(value["winner"], float(value["margin"]))
    raise ValueError(f"unknown claim {value['kind']}")
