"""From findings to a file whose guarantee is proved: rewrite, write, read back, prove, and undo what fails.

The claim is about the original and the network that is read back, so whatever folding, rounding, fusing or writing did
wrong shows as a claim that is not proved. Then findings of the criterion that ran last are undone, half of what is left
of them at a time, then those of the one before it; if no form with any finding is proved, and the rewriting alone is
not either, the original itself is what is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import onnx

from redy.bounds.linear import linear_bounds, value_bounds
from redy.errors import CheckFailed, InputError
from redy.formats.onnx_read import read_network
from redy.formats.onnx_write import to_model
from redy.model import Array, Box, Finding, Network
from redy.model.interface import with_shapes_of
from redy.reduction.guarantee import Exceeded, state, unchanged
from redy.reduction.problem import Guarantee, Known, Options, Problem
from redy.rewrite import Facts, Refusal, Shrunk, is_channel, round_weights, shrink
from redy.rewrite.chain import chained
from redy.rewrite.dense import is_vector

HALVINGS = 3
"""How often the findings of one criterion are halved before all of them are undone."""


@dataclass(frozen=True, slots=True, eq=False)
class Final:
    """What will be written.

    Attributes:
        network: as it was read back.
        model: the file; None for the original's own.
        guarantee: proved for it.
        shrunk: what the rewrites did; None where the original is kept.
    """

    network: Network
    model: bytes | None
    guarantee: Guarantee
    shrunk: Shrunk | None


def settle(problem: Problem, known: Known, timings: dict[str, float]) -> Final:
    """The file with as many findings as its guarantee can be proved with; `known.findings` become those."""
    images = {n.name for n in problem.network.activations if not is_vector(n.shape)}
    all_facts = Facts(problem.box, {name: pieces for name, pieces in known.pieces.items() if name in images})
    for findings, facts in _attempts(tuple(known.findings), all_facts, problem.options.criteria):
        known.findings = list(findings)
        try:
            return _settled(problem, known, facts, timings)
        except Exceeded as reason:
            what = f"{len(findings)} findings" if findings else "what holds for every input"
            what = what if facts is None else "what holds for single elements and fixed inputs"
            known.notes.append(f"{what} undone: {reason}")
    known.notes.append("the original is kept as it is")
    return kept(problem, known)


def kept(problem: Problem, known: Known) -> Final:
    """The original, without findings.

    Raises:
        InputError: a layout was asked for, which the original need not have.
    """
    if problem.options.layout != "auto":
        raise InputError(
            f"--layout {problem.options.layout}: no network in this layout was proved to keep what is asked; "
            "nothing was written; use --layout auto, or allow more time"
        )
    known.findings = []
    return Final(problem.network, None, unchanged(problem.network, problem.box, problem.options.preserve), None)


def _attempts(
    findings: tuple[Finding, ...], facts: Facts, criteria: tuple[str, ...]
) -> Iterator[tuple[tuple[Finding, ...], Facts | None]]:
    """All findings and facts, then no facts, then fewer and fewer findings."""
    if not facts.nothing:
        yield findings, facts
    yield findings, None
    kinds = [kind for kind in dict.fromkeys(reversed(criteria)) if any(f.kind == kind for f in findings)]
    for kind in kinds:
        mine = [finding for finding in findings if finding.kind == kind]
        others = [finding for finding in findings if finding.kind != kind]
        sizes = [len(mine) >> k for k in range(1, HALVINGS + 1)]
        for size in dict.fromkeys([*sizes, 0]):
            kept = set(map(id, [*others, *mine[:size]]))
            yield tuple(finding for finding in findings if id(finding) in kept), None
        findings = tuple(others)


def _settled(problem: Problem, known: Known, facts: Facts | None, timings: dict[str, float]) -> Final:
    problem.progress("folding")
    begin = time.perf_counter()
    chain = problem.options.layout == "chain"
    small, shrunk = rewritten(problem.network, tuple(known.findings), facts, problem.box, problem.options)
    if small is problem.network and chain:
        raise Exceeded(shrunk.refusal or "the chain could not be rounded")
    if small is problem.network and shrunk.refusal is not None:
        known.notes.append(shrunk.refusal)
    if small is problem.network:
        return Final(small, None, unchanged(problem.network, problem.box, problem.options.preserve), None)
    try:
        model, written = read_back(small, problem.network, chain=chain)
    except InputError as error:
        raise Exceeded(f"the network cannot be written ({error})") from error
    timings["rewrite"] = timings.get("rewrite", 0.0) + time.perf_counter() - begin
    larger = written.parameters > problem.network.parameters or written.macs > problem.network.macs
    if larger and not chain:
        raise Exceeded("every form that can be written is larger than the original")
    if larger:
        known.notes.append("in this layout the network is larger than the original")
    if _size(written) >= _size(problem.network) and not chain:
        known.notes.append("no form is smaller than the original, which is kept as it is")
        return Final(problem.network, None, unchanged(problem.network, problem.box, problem.options.preserve), None)
    problem.progress("proving what the file preserves")
    begin = time.perf_counter()
    guarantee = state(problem, known, written, shrunk.units)
    timings["guarantee"] = timings.get("guarantee", 0.0) + time.perf_counter() - begin
    return Final(written, model, guarantee, shrunk)


def _size(network: Network) -> tuple[int, int]:
    return network.parameters + network.macs, len(network.nodes)


def read_back(network: Network, original: Network, *, chain: bool = False) -> tuple[bytes, Network]:
    """The network as a file, and as it is read from that file, with the original's shapes of input and output.

    `chain` says that the nodes are spelled out for simple readers.

    Raises:
        InputError: it cannot be written, or the file cannot be read.
    """
    model = to_model(network, plain=chain)
    data = model.SerializeToString(deterministic=True)
    return data, with_shapes_of(read_network(onnx.load_model_from_string(data)), original)


def rewritten(
    network: Network, findings: tuple[Finding, ...], facts: Facts | None, box: Box, options: Options
) -> tuple[Network, Shrunk]:
    """The network with the findings applied, folded and rounded; what could not be rewritten stays as it was.

    Args:
        network: any network.
        findings: proved.
        facts: what else holds on the box; None: nothing is used.
        box: the inputs.
        options: the layout, and what the form has least of.

    Raises:
        InputError: the network cannot have the layout that was asked for.
    """
    chain = options.layout == "chain"
    channels = [finding for finding in findings if is_channel(network, finding)]
    others = [finding for finding in findings if not is_channel(network, finding)]
    if chain and channels:
        raise InputError("--layout chain: the network has convolutions; use --layout auto")
    layout = partial(chained, lowest=partial(_lowest, box)) if chain else None
    shrunk = shrink(network, others, facts, fewest=options.fewest, layout=layout)
    if isinstance(shrunk, Refusal):
        raise InputError(f"--layout chain: {shrunk.reason}; use --layout auto") if chain else CheckFailed(shrunk.reason)
    written = round_weights(shrunk.network, network.weight_dtype)
    if isinstance(written, Refusal):
        shrunk = Shrunk.unchanged(network, shrunk.lined, written.reason)
    rounded = network if isinstance(written, Refusal) else written
    if not channels:
        return rounded, shrunk
    from redy.rewrite.channels import remove_channels  # noqa: PLC0415 - loads onnx, which dense networks do not need

    small = remove_channels(rounded, network, channels, shrunk.units)
    if isinstance(small, Refusal):
        return rounded, replace(shrunk, refusal=small.reason)
    return small, shrunk


def _lowest(box: Box, network: Network, name: str) -> Array:
    """Lower bounds of a value on the box."""
    if name == network.input.name:
        return box.lower
    return value_bounds(network, linear_bounds(network, box), name)[0]
