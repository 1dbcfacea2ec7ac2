"""A family: the cut of a box and, for each slice, the small network that computes the original's outputs there."""

from __future__ import annotations

import html
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from redy.errors import CheckFailed, InputError
from redy.formats.onnx_read import read_network
from redy.model import Finding, Network
from redy.model.claims import SameWinner
from redy.rewrite import Refusal, fuse, round_weights, shrink
from redy.slicing.archive import pack_programs, unpack_program
from redy.slicing.cuts import Cut, Index
from redy.slicing.front import Front
from redy.slicing.lines import Lines, by_layer, dropped, line_findings, read_lines
from redy.slicing.masks import KEPT, Codes, findings_of, pack, unpack
from redy.slicing.program import Program, Step, living, program_of, restricted
from redy.slicing.property import SlicesProved
from redy.slicing.selections import Selections
from redy.slicing.sizes import Sizes, guarantee, sizes, summary
from redy.slicing.work import SliceRecord

Form = Literal["shared", "folded"]
EngineName = Literal["numpy", "onnxruntime"]

CACHED = 4096
"""Programs of slices kept in memory."""
TOGETHER = 1000
"""Points that the model of the whole family is given at once: what it gathers for them stays in the cache."""


@dataclass(eq=False)
class Family:
    """Small networks for the slices of a box; a point on a face belongs to exactly one slice (`redy.slicing.cuts`).

    Attributes:
        original: the original model as ONNX bytes.
        cut: how the box is cut.
        masks: (distinct masks, bytes) packed codes; equal masks (with equal lines) are stored once.
        slice_mask: (slices,) which mask each slice has.
        complete: (slices,) False where a limit ended the search of a slice; its network is valid all the same.
        form: how slices are evaluated unless a call says otherwise. "shared": on the original's weights, living rows
            and columns only; "folded": the slice's own smallest network, folded when it is first used or stored.
        folded: the arrays of `pack`, one program per mask, where folded networks are stored.
        front: what comes before the sliced network, where the cut is on a hidden layer (`redy.slicing.tail`).
        decision: the decision, for a family that keeps no more than its winner.
        winner: (slices,) for such a family the output that wins on the whole slice, -1 where the outputs are kept. A
            slice with a winner gives constants: 1 for the output with the largest value and 0 for the others, or 0 for
            the one with the smallest and 1 for the others.
        lines: the lines of each mask, for a family that keeps its outputs within a tolerance.
        tolerance: for such a family how far each output element may be from the original's.
        source: SHA-256 of the file that was sliced (`redy.formats.files.file_digest`); "" where nobody said.
        options: how it was cut and searched, in the words of `redy slice`; for the reader alone.
        error: what was proved about the file (`redy.slicing.proof`): in its form every output of a slice without a
            winner differs from the model's by no more; None where nothing was.
        proved: a property that was proved slice by slice (`redy.slicing.property`); slices where it was not are not
            kept: nothing is evaluated there.
    """

    original: bytes
    cut: Cut
    masks: NDArray[np.uint8]
    slice_mask: Index
    complete: NDArray[np.bool_]
    form: Form = "shared"
    folded: dict[str, NDArray[Any]] = field(default_factory=dict)
    front: Front | None = None
    decision: SameWinner | None = None
    winner: Index | None = None
    lines: Lines | None = None
    tolerance: tuple[float, ...] | None = None
    source: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    error: float | None = None
    proved: SlicesProved | None = None
    _cache: OrderedDict[tuple[int, Form], Program] = field(default_factory=OrderedDict, repr=False)
    _sessions: OrderedDict[tuple[int, Form] | None, Any] = field(default_factory=OrderedDict, repr=False)

    def __len__(self) -> int:
        return len(self.slice_mask)

    def __repr__(self) -> str:
        return (
            f"Family({len(self):,} slices, {len(self.masks):,} different networks, form {self.form}, "
            f"{self.removed().mean():.1%} of units removed on average)"
        )

    def _repr_html_(self) -> str:
        """The representation and the distribution of what was removed, for notebooks."""
        quarters = np.quantile(self.removed(), (0.0, 0.25, 0.5, 0.75, 1.0))
        names = ("least", "first quarter", "median", "third quarter", "most")
        rows = "".join(
            f"<tr><td>{name}</td><td>{share:.1%}</td></tr>" for name, share in zip(names, quarters, strict=True)
        )
        return f"<p>{html.escape(repr(self))}</p><table><tr><th>units removed</th><th></th></tr>{rows}</table>"

    @classmethod
    def from_records(
        cls,
        original: bytes,
        cut: Cut,
        records: Sequence[SliceRecord],
        *,
        decision: SameWinner | None = None,
        tolerance: tuple[float, ...] | None = None,
    ) -> Family:
        """The family of a finished run: one record per cell of the cut, in order.

        With `decision` slices whose winner is proved become constants, which need no unit; with `tolerance` the units
        that have lines are replaced.
        """
        if [record.index for record in records] != list(range(len(cut))):
            raise CheckFailed(f"{len(records)} results for {len(cut)} slices; this is a bug in redy")
        winner = None if decision is None else np.array([record.winner for record in records], dtype=np.int64)
        if winner is not None:
            # The mask of a constant: nothing lives.
            records = [replace(r, mask=bytes(len(r.mask))) if r.winner >= 0 else r for r in records]
        if tolerance is None:
            records = [replace(r, lines=b"") if r.lines else r for r in records]
        places: dict[tuple[bytes, bytes], int] = {}
        slice_mask = [places.setdefault((record.mask, record.lines), len(places)) for record in records]
        masks = np.array([np.frombuffer(mask, dtype=np.uint8) for mask, _ in places]).reshape(len(places), -1)
        complete = np.array([record.complete for record in records], dtype=bool)
        made = cls(original, cut, masks, np.array(slice_mask, dtype=np.int64), complete)
        made.decision, made.winner, made.tolerance = decision, winner, tolerance
        if tolerance is not None:
            lines = [read_lines(data) for _, data in places]
            small = [pack(dropped(made.codes(mask), mine)) for mask, mine in enumerate(lines)]
            made.masks = np.array([np.frombuffer(mask, dtype=np.uint8) for mask in small])
            made.lines = Lines.of(made.network, lines)
        return made

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Family:
        """Read a family's file.

        Raises:
            InputError: the file cannot be read or is no family.
        """
        from redy.slicing.saved import read_family  # noqa: PLC0415 - which imports this module

        return read_family(path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the family's file (docs/family.md)."""
        from redy.slicing.saved import write_family  # noqa: PLC0415 - which imports this module

        write_family(self, path)

    def with_folded(self) -> Family:
        """The same family with the folded network of every mask stored."""
        return replace(self, form="folded", folded=self.pack(range(len(self.masks))))

    def pack(self, masks: Iterable[int]) -> dict[str, NDArray[Any]]:
        """The folded networks of some masks as arrays; what the original's weights give is only referred to."""
        chosen = [int(mask) for mask in masks]
        programs = (self.mask_program(mask, "folded") for mask in chosen)
        return pack_programs(programs, lambda k: self.selections(chosen[k]).references())

    def selections(self, mask: int) -> Selections:
        """The parts of the original's weights that a mask names."""
        codes = self.codes(mask)
        # 1 is linear: a unit that folding takes away, so that no kept row or column is its own.
        codes[self.mask_lines(mask)["unit"]] = 1
        return Selections(self.network, self.whole, codes)

    @cached_property
    def network(self) -> Network:
        """The original network."""
        return read_network(onnx.load_model_from_string(self.original))

    @cached_property
    def whole(self) -> Program:
        """The original as a program, whose rows and columns the shared form uses."""
        return program_of(fuse(self.network), self.network.weight_dtype)

    def codes(self, mask: int) -> Codes:
        """The codes of one mask, (units,)."""
        codes: Codes = unpack(self.masks[mask : mask + 1], self.network.units)[0]
        return codes

    def mask_lines(self, mask: int) -> NDArray[np.void]:
        """The lines of one mask."""
        return read_lines(b"") if self.lines is None else self.lines[mask]

    def program(self, index: int, form: Form | None = None) -> Program:
        """The small network of one slice."""
        if not 0 <= index < len(self):
            raise InputError(f"slice {index}: the family has slices 0 to {len(self) - 1}")
        if self.winner is not None and self.winner[index] >= 0:
            return Program(self.whole.inputs, (Step((), (), self.constants[self.winner[index]], relu=False),))
        return self.mask_program(int(self.slice_mask[index]), form or self.form)

    @cached_property
    def constants(self) -> NDArray[Any]:
        """(outputs, outputs) what a slice gives where the k-th output wins."""
        one_hot = np.eye(self.whole.steps[-1].bias.size, dtype=self.whole.dtype)
        return one_hot if self.decision is None or self.decision.winner == "max" else 1 - one_hot

    def mask_program(self, mask: int, form: Form) -> Program:
        """The small network of one mask."""
        key = (mask, form)
        if key not in self._cache:
            if form == "shared":
                alive = living(self.network, self.whole, self.codes(mask))
                made = restricted(self.whole, alive, by_layer(self.network, self.mask_lines(mask)))
            elif self.folded:
                made = unpack_program(self.folded, mask, self.whole.inputs, self.selections(mask).array)
            else:
                made = self._fold(mask)
            self._cache[key] = made
            if len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _fold(self, mask: int) -> Program:
        small = self.folded_network(mask)
        return program_of(small, self.network.weight_dtype)

    def findings(self, mask: int) -> list[Finding]:
        """What one mask and its lines stand for.

        Within a tolerance none counts as a phase: behind a dropped unit phases need not hold, and what was proved has
        a line in place of every such unit, nowhere its ReLU.
        """
        found = findings_of(self.network, self.codes(mask))
        if self.tolerance is None:
            return found
        lines = line_findings(self.network, self.mask_lines(mask))
        return [*(replace(finding, kind="relaxed") for finding in found), *lines]

    def folded_network(self, mask: int) -> Network:
        """The smallest network for one mask, with weights rounded to the original's type."""
        shrunk = shrink(self.network, self.findings(mask), joined=0)
        if isinstance(shrunk, Refusal):
            raise CheckFailed(shrunk.reason)
        rounded = round_weights(shrunk.network, self.network.weight_dtype)
        return fuse(self.network) if isinstance(rounded, Refusal) else rounded

    def points(self, x: NDArray[Any]) -> tuple[NDArray[Any], bool]:
        """Points (n, inputs) in the weights' type from any accepted shape; whether it was one point.

        Raises:
            InputError: another shape, or a point outside the box. A point that is only outside by its rounding to the
                weights' type counts to the box.
        """
        box = self.cut.box if self.front is None else self.front.box
        shape, size = box.shape, box.size
        x = np.asarray(x)
        if x.dtype.kind not in "fiu":
            raise InputError(f"inputs hold {x.dtype}, not numbers")
        one = x.shape in {shape, (size,)}
        if not one and x.shape[1:] not in {shape, (size,)}:
            raise InputError(f"inputs have shape {x.shape}; give ({size},), (n, {size}) or (n, *{shape})")
        dtype = self.whole.dtype
        flat = x.reshape(-1, size).astype(dtype)
        lower, upper = self.limits
        outside = ~((flat >= lower) & (flat <= upper)).all(axis=1)
        if outside.any():
            raise InputError(f"point {int(outside.argmax())} lies outside the box of the family")
        return flat if self.front is None else self.front.hidden(flat, self.cut.box), one

    @cached_property
    def limits(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The box in the weights' type: each end rounded to nearest, or exact where that is further out."""
        dtype, box = self.whole.dtype, self.cut.box if self.front is None else self.front.box
        return box.lower.ravel().astype(dtype), box.upper.ravel().astype(dtype)

    def locate(self, x: NDArray[Any]) -> Index:
        """The slice of each point, (n,), for points in a shape that `evaluate` takes."""
        return self.cut.locate(self.points(x)[0])

    def evaluate(self, x: NDArray[Any], *, form: Form | None = None, engine: EngineName = "numpy") -> NDArray[Any]:
        """The outputs at one point, or at each point of a batch.

        Args:
            x: (inputs,) or the input's shape for one point; (n, inputs) or (n, *input shape) for a batch.
            form: "shared" or "folded"; by default the family's own.
            engine: "numpy" (sums in a fixed order: the same bits in any batch) or "onnxruntime".

        Returns:
            (*output shape) for a point, (n, *output shape) for a batch, in the weights' type: the original's outputs;
            or, of a family that keeps the decision alone, some with the same winner.

        Raises:
            InputError: x has another shape, or a point lies outside the box.
        """
        flat, one = self.points(x)
        chosen = form or self.form
        at = self.cut.locate(flat)
        self._check_kept(at)
        mask = self.slice_mask[at]
        if engine == "onnxruntime" and chosen == "shared":
            parts = np.split(flat, range(TOGETHER, len(flat), TOGETHER))
            result = np.concatenate([self._session(None).run(None, {"x": part})[0] for part in parts])
        else:
            result = np.empty((len(flat), self.whole.steps[-1].bias.size), dtype=self.whole.dtype)
            order = np.argsort(mask, kind="stable")
            for group in np.split(order, np.flatnonzero(np.diff(mask[order])) + 1):
                if group.size:
                    result[group] = self._evaluated(int(mask[group[0]]), chosen, engine, flat[group])
        if self.winner is not None:
            best = self.winner[at]
            result = np.where(best[:, None] >= 0, self.constants[best], result)
        shape = self.network.outputs[0].shape
        return np.asarray(result).reshape(shape if one else (len(flat), *shape))

    def _check_kept(self, at: Index) -> None:
        """Refuse points of slices that were not kept."""
        if self.proved is not None and not (kept := self.proved.kept[at]).all():
            point = int((~kept).argmax())
            raise InputError(
                f"point {point} lies in slice {at[point]}, which was not kept: {self.proved.name} is not proved there"
            )

    def _evaluated(self, mask: int, form: Form, engine: EngineName, flat: NDArray[Any]) -> NDArray[Any]:
        if engine == "numpy":
            return self.mask_program(mask, form).evaluate(flat)
        return np.asarray(self._session((mask, form)).run(None, {"x": flat})[0])

    def _session(self, key: tuple[int, Form] | None) -> Any:  # noqa: ANN401 - onnxruntime ships no types
        """An onnxruntime session over flat points: of one program, or (None) of the whole family in one model."""
        from redy.slicing.export_onnx import family_model, flat_model, session  # noqa: PLC0415 - onnxruntime loads late

        if key not in self._sessions:
            model = family_model(self, flat=True) if key is None else flat_model(self.mask_program(*key))
            self._sessions[key] = session(model)
            if len(self._sessions) > CACHED:
                self._sessions.popitem(last=False)
        return self._sessions[key]

    def removed(self) -> NDArray[np.float64]:
        """Per slice the share of units that are not needed."""
        codes = unpack(self.masks, self.network.units)
        if not codes.size:
            return np.zeros(len(self))
        gone = (codes != KEPT).sum(axis=1) + (0 if self.lines is None else self.lines.counts)
        return np.asarray(gone / self.network.units)[self.slice_mask]

    def shared_macs(self) -> Index:
        """Per slice the multiply-adds of the shared form."""
        macs = [
            _restricted_macs(self.whole, living(self.network, self.whole, codes))
            for codes in unpack(self.masks, self.network.units)
        ]
        lines = 0 if self.lines is None else self.lines.counts
        return np.asarray(np.array(macs, dtype=np.int64) + lines)[self.slice_mask]

    def sizes(self) -> Sizes:
        """Bytes in each form, against separate ONNX files and the original."""
        return sizes(self)

    @property
    def guarantee(self) -> str:
        """What holds of the outputs, in words."""
        return guarantee(self)

    def summary(self) -> str:
        """What the family holds and costs, in lines."""
        return summary(self)


def _restricted_macs(program: Program, alive: Sequence[Index]) -> int:
    return sum(
        rows.size * sum(alive[source].size for source in step.sources)
        for step, rows in zip(program.steps, alive[1:], strict=True)
    )


def choose_form(family: Family, form: Literal["shared", "folded", "auto"], *, store: bool = False) -> Family:
    """The family in the form the user names; with `store` the folded networks are stored, too.

    "folded" folds a slice when it is first used, so it takes what the shared form takes: the original once and a mask a
    slice. "auto" stores folded networks where that is no larger, and is the shared form elsewhere.
    """
    if form == "shared":
        return family
    if form == "folded":
        return family.with_folded() if store else replace(family, form="folded")
    if len(family.masks) > AUTO_FOLDS:
        return family
    shared = family.masks.nbytes + family.whole.parameters * family.whole.dtype.itemsize
    folded = family.with_folded()
    return folded if sum(array.nbytes for array in folded.folded.values()) <= shared else family


AUTO_FOLDS = 1000
"""Above this number of distinct networks the shared form is the smaller one, and folding all takes minutes."""
