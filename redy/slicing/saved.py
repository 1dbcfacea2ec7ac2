"""What of a family lies where in its file (docs/family.md)."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from redy.errors import CheckFailed, InputError
from redy.formats.files import file_digest, write_atomically
from redy.model import Box
from redy.model.claims import SameWinner
from redy.model.digest import network_digest
from redy.slicing.archive import archive_bytes, read_archive
from redy.slicing.cuts import read_cut
from redy.slicing.family import Family
from redy.slicing.front import Front
from redy.slicing.lines import Lines
from redy.slicing.property import SlicesProved
from redy.version import __version__


def read_family(path: str | os.PathLike[str] | BinaryIO) -> Family:
    """The family of a file, or of its bytes.

    Raises:
        InputError: the file cannot be read or is no family.
    """
    manifest, original, arrays = read_archive(path)
    try:
        cut = read_cut({n.removeprefix("cut/"): a for n, a in arrays.items() if n.startswith("cut/")})
        folded = {n.removeprefix("folded/"): a for n, a in arrays.items() if n.startswith("folded/")}
        masks, slice_mask = arrays["masks"], arrays["slice_mask"].astype(np.int64)
        front = None
        if "front/model" in arrays:
            limits = Box(arrays["front/lower"], arrays["front/upper"])
            front = Front(arrays["front/model"].tobytes(), limits)
        family = Family(original, cut, masks, slice_mask, arrays["complete"], manifest["form"], folded, front)
        if "winner" in arrays:
            family.decision = SameWinner(**manifest["decision"])
            family.winner = arrays["winner"].astype(np.int64)
        if "lines/table" in arrays:
            family.lines = Lines(arrays["lines/table"], arrays["lines/starts"])
            family.tolerance = tuple(manifest["tolerance"])
        family.source, family.options = manifest.get("source_sha256", ""), manifest.get("options", {})
        if "proved" in arrays:
            said = manifest["property"]
            family.proved = SlicesProved(said["name"], said["digest"], arrays["proved"].astype(np.int8))
        if "error" in manifest:
            family.error = float(manifest["error"])
        fits = len(slice_mask) == len(cut) == len(family.complete) and slice_mask.max(initial=0) < len(masks)
        fits &= not folded or len(folded["starts"]) == len(masks)
        fits &= family.winner is None or len(family.winner) == len(cut)
        fits &= family.proved is None or len(family.proved.verdicts) == len(cut)
        fits &= family.tolerance is None or len(family.tolerance) == family.whole.steps[-1].bias.size
        fits &= family.lines is None or family.lines.fits(len(masks), family.network.units)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"{path}: is damaged ({error}); write it again with `redy slice --resume`") from error
    # Older files of this version say nothing of the box.
    fits = fits and _box(family).digest == manifest.get("box", _box(family).digest)
    if not fits or network_digest(family.network) != manifest["model"]:
        raise InputError(f"{path}: its parts do not fit together; write it again with `redy slice --resume`")
    return family


def _box(family: Family) -> Box:
    """The box of the model's inputs."""
    return family.cut.box if family.front is None else family.front.box


def is_source(family: Family, path: Path) -> bool:
    """Whether the file at a path is the model that the family was made from, whatever its name is."""
    if not path.is_file():
        return False
    return file_digest(path) in {family.source, hashlib.sha256(family.original).hexdigest()}


def write_family(family: Family, path: str | os.PathLike[str]) -> None:
    """Write the file of a family, read it back, and rename it where it holds that family.

    Raises:
        InputError: `path` cannot be written.
        CheckFailed: what is read back is another family; nothing was written.
    """
    data = family_bytes(family)

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)
        if family_bytes(read_family(temporary)) != data:
            raise CheckFailed(f"{path}: the file does not hold the family; nothing was written")

    write_atomically(path, write)


def family_bytes(family: Family) -> bytes:
    """The file of a family; equal families give equal bytes."""
    narrow = np.uint16 if len(family.masks) <= 1 << 16 else np.uint32
    arrays: dict[str, NDArray[Any]] = {f"cut/{name}": array for name, array in family.cut.arrays().items()}
    arrays |= {"masks": family.masks, "slice_mask": family.slice_mask.astype(narrow), "complete": family.complete}
    arrays |= {f"folded/{name}": array for name, array in family.folded.items()}
    if family.front is not None:
        model = np.frombuffer(family.front.model, dtype=np.uint8)
        arrays |= {"front/model": model, "front/lower": family.front.box.lower, "front/upper": family.front.box.upper}
    if family.winner is not None:
        arrays["winner"] = family.winner.astype(np.int32)
    if family.proved is not None:
        arrays["proved"] = family.proved.verdicts
    if family.lines is not None:
        arrays |= {"lines/table": family.lines.table, "lines/starts": family.lines.starts}
    manifest: dict[str, Any] = {
        "box": _box(family).digest,
        "form": family.form,
        "guarantee": family.guarantee,
        "model": network_digest(family.network),
        "options": family.options,
        "options_sha256": hashlib.sha256(json.dumps(family.options, sort_keys=True).encode()).hexdigest(),
        "original_sha256": hashlib.sha256(family.original).hexdigest(),
        "redy": __version__,
        "slices": len(family),
        "source_sha256": family.source,
        "units": family.network.units,
    }
    if family.decision is not None:
        manifest["decision"] = asdict(family.decision)
    if family.proved is not None:
        manifest["property"] = {"name": family.proved.name, "digest": family.proved.digest}
    if family.tolerance is not None:
        manifest["tolerance"] = list(family.tolerance)
    if family.error is not None:
        manifest["error"] = family.error
    return archive_bytes(manifest, family.original, arrays)
