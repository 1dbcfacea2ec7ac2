"""Which rewrites a run may use, and which form of the result is given back where latency counts.

The choice is the cost model's and so the same on every machine and run; the clock only vetoes: a form that is slower
than 1.02 times the original is not given back, and a plainer one is tried. Where the ratio is near 1.02 it is measured
until it is clear on which side it lies, or for some seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx

from redy.simplify.cost import Cost
from redy.simplify.latency import Latency, measure
from redy.simplify.report import Simplified

SLOWEST = 1.02
"""A result that takes more than this share of the original's time is not given back where latency counts."""

BLOCK = 8
"""Channels that onnxruntime's convolutions compute at once."""

TOO_SMALL = 100_000
"""Multiply-adds below which onnxruntime's overhead for a call and a node is nearly all of the time."""

_AS_GOOD = 1.1
"""A form with fewer multiply-adds is preferred while its estimated time is at most this share of the best one's."""

_COSTLY_GATES = frozenset(["split_gates", "select_channels"])
_COSTLY = (*_COSTLY_GATES, "border_maps", "expand_residuals")
"""Rewrites that may take more time than they save."""


@dataclass(frozen=True)
class Choice:
    """Which rewrites a run may use.

    Attributes:
        residual: as in `simplify`.
        fix_inputs: as in `simplify`.
        maps: whether constants may become maps added behind a layer.
        gates: whether gates may be split and selectors inserted.
        block: layers keep a multiple of this number of channels.
    """

    residual: str
    fix_inputs: bool = False
    maps: bool = True
    gates: bool = True
    block: int = 1

    def fewer(self) -> list[Choice]:
        """Without border maps, and without gates too."""
        flat = dataclasses.replace(self, maps=False)
        return [flat, dataclasses.replace(flat, gates=False)]

    @property
    def filled(self) -> Choice:
        """With channels kept up to blocks."""
        return dataclasses.replace(self, block=BLOCK)

    @property
    def what(self) -> str:
        """What was left out, in words."""
        left = [name for name, kept in (("border maps", self.maps), ("gates", self.gates)) if not kept]
        left += ["reordered residual sums"] if self.residual == "union" else []
        filled = f"channels were kept up to multiples of {self.block}" if self.block > 1 else "all rewrites were used"
        return f"{filled}, without {', '.join(left)}" if left else filled


def quickest(
    model: onnx.ModelProto,
    rewrite: Callable[[Choice], Simplified],
    accept: Callable[[Simplified, Choice], Simplified],
    choice: Choice,
    seed: int,
) -> Simplified | None:
    """The form that the cost model prefers and the clock does not veto; None where it vetoes every one.

    `rewrite` makes one form, or gives back the model itself; `accept` compares one with the original.
    """
    full = rewrite(choice)
    if full.model is model:
        return full
    if full.report.before.multiply_adds < TOO_SMALL:
        return _small(accept(full, choice), measure(model, full.model, SLOWEST, seed))
    for made, used in _forms(full, rewrite, choice):
        latency = measure(model, made.model, SLOWEST, seed)
        if latency is None or not latency.slower(SLOWEST):
            return _timed(accept(made, used), latency, [] if used == choice else [_because(used)])
    return None


def _small(made: Simplified, latency: Latency | None) -> Simplified:
    """What is nothing but overhead to the runtime is made as small as can be, and the time is told."""
    if latency is None or not latency.slower(SLOWEST):
        return _timed(made, latency, [])
    text = (
        f"the result takes {latency.ratio:.2f} times the original's {latency.before:.3f} ms: at this size "
        "onnxruntime's overhead for each node is most of the time"
    )
    return _timed(made, latency, [text])


def _forms(
    full: Simplified, rewrite: Callable[[Choice], Simplified], choice: Choice
) -> Iterator[tuple[Simplified, Choice]]:
    """First the form with the fewest multiply-adds of those that are as good as the best estimate, then by estimate."""
    wanted = [choice]
    if any(name in full.report.rewrites for name in _COSTLY):
        wanted += choice.fewer()[: 1 if _COSTLY_GATES.isdisjoint(full.report.rewrites) else 2]
    after = full.report.after
    if after.unblocked > (1 - 1 / _AS_GOOD) * after.estimate:  # else filling blocks cannot pay
        wanted += [one.filled for one in wanted]
    forms: list[tuple[Cost, Choice]] = []
    for one in wanted:
        report = (full if one == choice else rewrite(one)).report
        if report.rewrites and all(report.after != cost for cost, _ in forms):  # else the original, or a form again
            forms.append((report.after, one))
    forms.sort(key=lambda form: form[0].estimate)  # equal estimates keep their order
    enough = forms[0][0].estimate * _AS_GOOD
    first = min((form for form in forms if form[0].estimate <= enough), key=lambda form: form[0].multiply_adds)
    for _, one in [first, *(form for form in forms if form is not first)]:
        yield full if one == choice else rewrite(one), one  # made again rather than held: models are big
    if "expand_residuals" not in full.report.rewrites:
        return
    last = dataclasses.replace(choice.filled.fewer()[-1], residual="union")
    made = rewrite(last)
    if made.report.rewrites:
        yield made, last


def _because(used: Choice) -> str:
    return f"{used.what}, because the result would be slower otherwise"


def _timed(made: Simplified, latency: Latency | None, notes: list[str]) -> Simplified:
    report = dataclasses.replace(made.report, latency=latency, notes=[*made.report.notes, *notes])
    return Simplified(made.model, report)
