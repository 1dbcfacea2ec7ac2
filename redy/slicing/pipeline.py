"""One network, one box: cut it, search every slice, and put the family together. `redy slice` and Python call this."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import ModelProto

from redy.errors import CheckFailed, InputError
from redy.formats.files import external_data, file_digest, load_model, read_bytes
from redy.formats.onnx_read import read_network
from redy.model import Box, Network, Property
from redy.model.claims import SameWinner, Winner
from redy.questions.prove import property_of
from redy.runs.cluster import executor_of
from redy.runs.executor import Executor
from redy.runs.store import Store, require_parquet
from redy.slicing.adaptive import REFINED, adaptive_cut
from redy.slicing.cuts import Cut, GridCut, TreeCut
from redy.slicing.export_c import c_source
from redy.slicing.family import Family, Form, choose_form
from redy.slicing.flash import flash_leaves, flash_pruned, flash_size
from redy.slicing.front import Front
from redy.slicing.proof import proved
from redy.slicing.property import prove_family
from redy.slicing.pruning import pruned
from redy.slicing.run import COLUMNS, Progress, run_slices
from redy.slicing.tail import relu_layer, split_model, tail_cut
from redy.slicing.work import SliceOptions, SliceRecord, SliceWork, decision_of, tolerance_of

MOST_SLICES = 1 << 24

Preserve = Literal["outputs", "decision", "tolerance"]


@dataclass(frozen=True, slots=True)
class HowToCut:
    """How the box is cut: exactly one of a grid, an adaptive tree, or the values of a hidden layer.

    Attributes:
        splits: parts of each input: one number for all inputs, or one each.
        budget: the largest number of slices of an adaptive tree.
        at: a ReLU layer whose values are cut, and
        units: how many of its units are halved.
        flash: bytes of a C file; a tree is cut so that its evaluation is the fastest within them.

    Raises:
        InputError: not exactly one of them is given.
    """

    splits: int | Sequence[int] | None = None
    budget: int | None = None
    at: str | None = None
    units: int | None = None
    flash: int | None = None

    def __post_init__(self) -> None:
        if (self.at is None) != (self.units is None):
            raise InputError("--at and --units (how many units of the layer are halved) are given together")
        if sum(one is not None for one in (self.splits, self.budget, self.at, self.flash)) != 1:
            raise InputError(
                "say how to cut: --splits 8 (or 8,4,4,2,2), or --adaptive --budget N, or --at LAYER --units N, "
                "or --flash BYTES"
            )
        if self.flash is not None and self.flash < 1:
            raise InputError(f"--flash {self.flash}: must be a positive number of bytes")
        if self.budget is not None and self.budget < 1:
            raise InputError(f"--budget {self.budget}: must be at least 1")


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is sliced: the model of the family, its network, how its box is cut, and what comes before it."""

    original: bytes
    network: Network
    cut: Cut
    front: Front | None = None


def slice_network(  # noqa: PLR0913 - the options of the command, with the same words
    model: str | os.PathLike[str] | ModelProto,
    box: Box,
    *,
    splits: int | Sequence[int] | None = None,
    budget: int | None = None,
    at: str | None = None,
    units: int | None = None,
    flash: int | None = None,
    preserve: Preserve = "outputs",
    winner: Winner = "max",
    margin: float | None = None,
    tolerance: float | None = None,
    relative_to: Literal["box"] | None = None,
    form: Literal["shared", "folded", "auto"] = "auto",
    store_folded: bool = False,
    work: int = 200_000_000,
    samples: int = 1024,
    seed: int = 0,
    time_limit: float | None = None,
    prop: str | os.PathLike[str] | Property | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    store: str | os.PathLike[str] | None = None,
    resume: bool = False,
    csv: str | os.PathLike[str] | None = None,
    parquet: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Family:
    """Cut a box into slices and find what the network does not need on each: all that `redy slice` does.

    Args:
        model: an ONNX file, or a loaded model.
        box: its shape is the input's, without the batch axis.
        splits: a grid: parts per input, one number for all or one each.
        budget: a tree with at most so many slices, cut where a cut removes most (`redy slice --adaptive`).
        at: cut the values of this ReLU layer, into 2^units slices; `units` of them are halved.
        units: for `at`.
        flash: a tree, and the form, whose C99 code is the fastest that takes no more than so many bytes of read-only
            memory (`redy.slicing.flash`); `form` is then "auto".
        preserve: "outputs", "decision" (slices with one winner become constants) or "tolerance".
        winner: for "decision".
        margin: for "decision": outputs closer than this are tied; by default a share of the largest output.
        tolerance: for "tolerance": how far an output may be off.
        relative_to: "box": the tolerance is a share of each output's range met on the box.
        form: how slices are evaluated and stored (docs/family.md).
        store_folded: for form "folded": store the folded networks.
        work: of branching per slice, in its own deterministic unit; 10^9 is a few seconds.
        samples: points drawn from each slice.
        seed: of every random choice.
        time_limit: seconds per slice.
        prop: a VNN-LIB file, or a property; only slices on which it is proved, or which it does not touch, are kept.
        jobs: processes of this machine.
        scheduler: address of a Dask scheduler to run on instead.
        store: a results store (SQLite), in which every finished slice is durable; without one nothing is kept.
        resume: go on with the results that the store holds.
        csv: also write the results of all slices as CSV; needs `store`.
        parquet: likewise as Parquet.
        progress: called after each slice.
        say: called with a line where the store held damaged results, or parts of a hidden layer were joined.

    Returns:
        The family; `family.save(path)` writes it. Results depend neither on `jobs` nor on `scheduler`, and on the
        machine only where a time limit ends a search.

    Raises:
        InputError: the model, the box or an option does not fit; the text says which and what to do.
        CheckFailed: an internal check failed, the family is not proved to be the model, or the property is proved on
            no slice.
    """
    how = HowToCut(splits, budget, at, units, flash)
    if flash is not None and (form != "auto" or store_folded):
        raise InputError("--flash: chooses the form; leave --form and --store-folded out")
    _check(preserve, tolerance, relative_to, time_limit, form, store_folded)
    if store is None and (csv is not None or parquet is not None or resume):
        raise InputError("--csv, --parquet and --resume need a results store; give --store")
    if parquet is not None:
        require_parquet()
    network = read_network(model if isinstance(model, ModelProto) else Path(model))
    # Of the model's own outputs on its own box, also where a hidden layer is cut.
    decision = decision_of(network, box, winner, margin) if preserve == "decision" else None
    allowed = None if tolerance is None else tolerance_of(network, box, tolerance, relative_to, seed)
    claim = prop if prop is None or isinstance(prop, Property) else property_of(network, prop)
    if claim is not None and at is not None:
        raise InputError("--property: belongs to cuts of the input; leave --at out")
    subject = _subject(_model_bytes(model), network, box, how, seed, decision)
    options = SliceOptions(work, samples, seed=seed, time_limit=time_limit, decision=decision, tolerance=allowed)
    task = SliceWork(subject.network, subject.cut, options)
    saved = contextlib.nullcontext() if store is None else Store(Path(store), COLUMNS, task.digests, resume=resume)
    with saved as results:
        if say and results is not None and results.discarded:
            say(f"{store}: {results.discarded} results were damaged and are made again")
        records = run_slices(task, executor_of(jobs, scheduler), results, jobs=jobs, progress=progress)
        if results is not None and csv is not None:
            results.export_csv(csv)
        if results is not None and parquet is not None:
            results.export_parquet(parquet)
    made_with = {"work": work, "samples": samples, "seed": seed, "time_limit": time_limit, "preserve": preserve}
    digest = hashlib.sha256(subject.original).hexdigest() if isinstance(model, ModelProto) else file_digest(Path(model))

    def made(cut: Cut, records: list[SliceRecord], form: Form) -> Family:
        family = Family.from_records(subject.original, cut, records, decision=decision, tolerance=allowed)
        return replace(family, form=form, front=subject.front, source=digest, options=made_with | _words(how, box))

    chosen: Form = "shared"
    cut: Cut = subject.cut
    if flash is not None:
        assert isinstance(cut, TreeCut)
        cut, records, chosen = flash_pruned(subject.network, cut, records, flash, made)
    else:
        cut, records = pruned(subject.network, cut, records, budget)
        if say and at is not None and len(cut) < len(subject.cut):
            say(
                f"--at {at}: {len(subject.cut)} parts were cut, {len(cut)} left: neighbours with the same units were "
                "joined; a later layer or more units may tell more parts apart"
            )

    def build(records: list[SliceRecord]) -> Family:
        family = made(cut, records, chosen)
        return family if flash is not None else choose_form(family, form, store=store_folded)

    family = proved(network, subject.network, records, build, executor_of(jobs, scheduler))
    if flash is not None and flash_size(c_source(family)) > flash:
        raise CheckFailed(f"--flash {flash}: what could be proved takes more; give some more bytes")
    return family if claim is None else _kept(family, claim, executor_of(jobs, scheduler), time_limit)


def _kept(family: Family, claim: Property, executor: Executor, time_limit: float | None) -> Family:
    """The family with the slices on which the property is proved."""
    verdict = prove_family(family, claim, executor, time_limit=time_limit)
    if not verdict.slices.kept.any():
        raise CheckFailed(f"{verdict.slices}: no slice can be kept; nothing was written")
    return replace(family, proved=verdict.slices)


def _check(
    preserve: str,
    tolerance: float | None,
    relative_to: str | None,
    time_limit: float | None,
    form: str,
    store_folded: bool,
) -> None:
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"--time-limit {time_limit}: must be a positive number of seconds")
    if preserve not in ("outputs", "decision", "tolerance"):
        raise InputError(f"--preserve {preserve}: must be outputs, decision or tolerance")
    if form not in ("shared", "folded", "auto"):
        raise InputError(f"--form {form}: must be shared, folded or auto")
    if store_folded and form != "folded":
        raise InputError("--store-folded: belongs to --form folded")
    if (preserve == "tolerance") != (tolerance is not None):
        raise InputError("--preserve tolerance and --tolerance E (the largest change of an output) are given together")
    if relative_to is not None and tolerance is None:
        raise InputError("--relative-to: belongs to --preserve tolerance")


def _words(how: HowToCut, box: Box) -> dict[str, Any]:
    """How it was cut, for the manifest; what was not given is left out."""
    splits = None if how.splits is None else list(parts(how.splits, box.size))
    given = {"splits": splits, "budget": how.budget, "at": how.at, "units": how.units, "flash": how.flash}
    return {name: value for name, value in given.items() if value is not None}


def _model_bytes(model: str | os.PathLike[str] | ModelProto) -> bytes:
    """The model as one ONNX file: decompressed, and with its external data inside."""
    if isinstance(model, ModelProto):
        return bytes(model.SerializeToString())
    path = Path(model)
    data = load_model(path).SerializeToString() if external_data(path) else read_bytes(path, "give an ONNX model")
    return bytes(data)


def _subject(
    original: bytes, network: Network, box: Box, how: HowToCut, seed: int, decision: SameWinner | None
) -> _Subject:
    if how.at is not None and how.units is not None:
        relu_layer(network, how.at)
        before, behind = split_model(onnx.load_from_string(original), how.at)
        tail = read_network(onnx.load_from_string(behind))
        return _Subject(behind, tail, tail_cut(network, tail, box, how.at, how.units), Front(before, box))
    if how.flash is not None:
        return _Subject(
            original, network, adaptive_cut(network, box, flash_leaves(how.flash), seed=seed, decision=decision)
        )
    if how.budget is not None:
        cut: Cut = adaptive_cut(network, box, REFINED * how.budget, seed=seed, decision=decision)
    else:
        cut = GridCut.of(box, parts(how.splits or 0, box.size))
    return _Subject(original, network, cut)


def parts(splits: int | Sequence[int], inputs: int) -> tuple[int, ...]:
    """The number of parts for each input.

    Raises:
        InputError: not one positive number for all inputs, or one for each; or too many cells.
    """
    numbers = (splits,) * inputs if isinstance(splits, int) else tuple(splits)
    numbers = numbers * inputs if len(numbers) == 1 else numbers
    text = f"--splits {','.join(map(str, numbers))}"
    if len(numbers) != inputs:
        raise InputError(f"{text}: gives {len(numbers)} numbers, the network has {inputs} inputs")
    if min(numbers, default=1) < 1:
        raise InputError(f"{text}: every number must be at least 1")
    if math.prod(numbers) > MOST_SLICES:
        raise InputError(f"{text}: gives {math.prod(numbers)} slices; at most {MOST_SLICES} are supported")
    return numbers
