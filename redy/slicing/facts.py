"""What a family's file holds, as a document: what `redy info` shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from redy.slicing.archive import read_archive
from redy.slicing.cuts import Cut, GridCut, TreeCut
from redy.slicing.family import Family


def family_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """How a family was cut, what it keeps, what it takes, and the digests that its manifest gives.

    Args:
        path: a file that `redy slice` wrote.

    Returns:
        A document of JSON types: sizes in bytes, shares between 0 and 1.

    Raises:
        InputError: the file is no family, or is damaged.
    """
    manifest, _, _ = read_archive(path)
    family = Family.open(path)
    removed, macs, whole = family.removed(), family.shared_macs(), family.whole
    box = family.cut.box if family.front is None else family.front.box
    digests = {name: manifest[name] for name in ("model", "source_sha256", "original_sha256") if manifest.get(name)}
    digests |= {"box": box.digest} | {name: manifest[name] for name in ("options_sha256",) if name in manifest}
    return {
        "written_by": manifest["redy"],
        "version": manifest["version"],
        "guarantee": family.guarantee,
        "cut": _cut(family.cut) | {"of": "inputs" if family.front is None else "values of a hidden layer"},
        "options": family.options,
        "slices": len(family),
        "distinct": len(family.masks),
        "partial": int((~family.complete).sum()),
        "decided": 0 if family.winner is None else int((family.winner >= 0).sum()),
        "kept": len(family) if family.proved is None else int(family.proved.kept.sum()),
        "property": None if family.proved is None else {"name": family.proved.name, "digest": family.proved.digest},
        "form": family.form,
        "folded_stored": bool(family.folded),
        "inputs": box.size,
        "outputs": int(whole.steps[-1].bias.size),
        "units": family.network.units,
        "units_not_needed": {
            "mean": float(removed.mean()),
            "median": float(np.median(removed)),
            "least": float(removed.min()),
        },
        "multiply_adds": {"original": whole.macs, "shared_mean": float(macs.mean())},
        "bytes": Path(path).stat().st_size,
        "digests": digests,
        "members": {name: facts["size"] for name, facts in manifest.get("members", {}).items()},
    }


def _cut(cut: Cut) -> dict[str, Any]:
    if isinstance(cut, GridCut):
        return {"kind": "grid", "splits": list(cut.grid.splits)}
    assert isinstance(cut, TreeCut)
    return {"kind": "tree", "leaves": len(cut), "depth": cut.depth}
