"""What a family holds, takes and keeps, in numbers and in words: the lines that `redy slice` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from redy.slicing.family import Family

DRAWN = 32
"""Slices that are folded to measure what folded networks take."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes, before the compression of the family's file.

    Attributes:
        slices: how many slices there are.
        original: the original as an ONNX file, which a family holds once in every form.
        masks: a slice, in the mean, in the shared form, and in the folded form where slices are folded when first used:
            two bits a unit of each distinct mask, its lines, and the number of the slice's mask.
        stored: a slice, in the mean, with the folded networks stored beside the masks.
        separate: a slice, in the mean, as an ONNX file of its own that holds its folded network.
        macs: multiply-adds of the folded networks, in the mean.
        drawn: how many slices the last three were measured on.
    """

    slices: int
    original: int
    masks: float
    stored: float
    separate: float
    macs: float
    drawn: int

    def total(self, a_slice: float) -> float:
        """The whole family with the original, when a slice takes so much."""
        return self.original + self.slices * a_slice


def sizes(family: Family, drawn: int = DRAWN) -> Sizes:
    """Measure a family; folded networks on slices at equal distances."""
    from redy.slicing.export_onnx import slice_model  # noqa: PLC0415 - onnxruntime loads late

    chosen = np.unique(np.linspace(0, len(family) - 1, min(drawn, len(family))).round().astype(np.int64))
    masks = np.unique(family.slice_mask[chosen])
    packed = family.folded if len(masks) == len(family.masks) and family.folded else family.pack(masks)
    share = len(family.masks) / len(masks)
    number = 2 if len(family.masks) <= 1 << 16 else 4
    lines = 0 if family.lines is None else family.lines.table.nbytes + family.lines.starts.nbytes
    each = (family.masks.nbytes + lines + len(family) * number) / len(family)
    stored = sum(array.nbytes for array in packed.values()) * share / len(family)
    separate = [len(slice_model(family, int(index), "folded").SerializeToString()) for index in chosen]
    macs = [family.program(int(index), "folded").macs for index in chosen]
    return Sizes(
        slices=len(family),
        original=len(family.original),
        masks=each,
        stored=each + stored,
        separate=float(np.mean(separate)),
        macs=float(np.mean(macs)),
        drawn=len(chosen),
    )


def summary(family: Family) -> str:
    """What a family holds and costs, in lines."""
    share, macs, size = family.removed(), family.shared_macs(), sizes(family)
    whole = family.whole.macs
    partial = int((~family.complete).sum())
    kept = size.stored if family.folded else size.masks
    separate = size.slices * size.separate
    drawn = "" if size.drawn == size.slices else f" (of {size.drawn} slices)"
    lines = [
        f"slices           {len(family)} ({len(family.masks)} distinct, {partial} partial)",
        f"units not needed {share.mean():.1%} on average (median {np.median(share):.1%}, least {share.min():.1%})",
        f"multiply-adds    shared {_share(macs.mean(), whole)}, folded {_share(size.macs, whole)}{drawn}",
        f"bytes a slice    {size.masks:.0f} shared, or folded when first used",
        f"                 {size.stored:.0f} folded and stored{drawn}",
        f"                 {size.separate:.0f} as separate ONNX files{drawn}",
        f"bytes in all     {size.total(kept):.0f} with the original's {size.original}, {_form(family)}",
        f"                 {separate:.0f} as separate ONNX files, {separate / size.total(kept):.1f} times as much",
        family.guarantee,
    ]
    return "\n".join(lines)


def _share(part: NDArray[np.float64] | float, whole: int) -> str:
    return f"{float(part) / max(1, whole):.1%}"


def _form(family: Family) -> str:
    if family.form == "shared":
        return "shared form"
    return "folded form, stored" if family.folded else "folded form, folded when first used"


def guarantee(family: Family) -> str:
    """What holds of the outputs of a family."""
    if family.proved is None:
        return _preserved(family)
    kept = f"{int(family.proved.kept.sum())} of {len(family)} slices are kept"
    return f"{_preserved(family)} {kept}: those on which {family.proved.name} is proved, or which it does not touch."


def _preserved(family: Family) -> str:
    """What the outputs have to do with the original's."""
    where = "in real arithmetic on the original's weights"
    outputs = f"{where} the outputs are the original's"
    if family.error is not None:
        where = f"in real arithmetic on the numbers in the file, in its {family.form} form,"
        outputs = f"{where} every output differs from the original's by at most {family.error:.3g}"
    if family.tolerance is not None:
        least, most = min(family.tolerance), max(family.tolerance)
        far = f"{most:.3g}" if least == most else f"{least:.3g} to {most:.3g} (each element its own)"
        return f"On the closed box of every slice {where} every output is within {far} of the original's."
    if family.decision is None or family.winner is None:
        return f"On the closed box of every slice {outputs}."
    count, most_or_least = int((family.winner >= 0).sum()), "largest" if family.decision.winner == "max" else "smallest"
    return (
        f"On the closed boxes of {count} of {len(family)} slices the decision alone is kept: one output, the "
        f"{most_or_least} of the original on the whole slice by at least {family.decision.margin / 2:.3g}, is the "
        f"{most_or_least} of the constants given there. On the others {outputs}."
    )
