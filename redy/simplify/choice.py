"""Which rewrites a run may use, and which form of the result is given back where latency counts.

The choice is the cost model's and so the same on every machine and run; the clock only vetoes: a form that is slower
than 1.02 times the original beyond the noise of the measurement is not given back, and a plainer one is tried.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx

from redy.simplify.latency import Latency, measure
from redy.simplify.report import Simplified

SLOWEST = 1.02
"""A result that takes more than this share of the original's time is not given back where latency counts."""

BLOCK = 8
"""Channels that onnxruntime's convolutions compute at once."""

TOO_SMALL = 100_000
"""Multiply-adds below which onnxruntime's overhead for a call and a node is nearly all of the time."""

_COSTLY = ("border_maps", "split_gates", "select_channels", "expand_residuals")
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

    @property
    def plain(self) -> Choice:
        """Without what may cost time."""
        return dataclasses.replace(self, maps=False, gates=False)

    def plainer(self) -> list[Choice]:
        """Choices with less and less of what may cost time."""
        filled = dataclasses.replace(self, block=BLOCK)
        return [filled, filled.plain, dataclasses.replace(filled.plain, residual="union")]

    @property
    def what(self) -> str:
        """What was left out, in words."""
        left = [name for name, kept in (("border maps", self.maps), ("gates", self.gates)) if not kept]
        left += ["reordered residual sums"] if self.residual == "union" else []
        filled = f"channels were kept up to multiples of {self.block}" if self.block > 1 else "all rewrites were used"
        return f"{filled}, without {', '.join(left)}" if left else filled


def quickest(
    model: onnx.ModelProto, rewrite: Callable[[Choice], Simplified], choice: Choice, seed: int
) -> Simplified | None:
    """The form that the cost model prefers and the clock does not veto; None where it vetoes every one.

    `rewrite` makes one form; it gives back the model itself where nothing could be done.
    """
    full = rewrite(choice)
    if full.model is model:
        return full
    if full.report.before.multiply_adds < TOO_SMALL:
        return _small(full, measure(model, full.model, SLOWEST, seed))
    for made, used in _forms(full, rewrite, choice):
        if made.model is model:
            return made
        latency = measure(model, made.model, SLOWEST, seed)
        if latency is None or not latency.slower(SLOWEST):
            return _timed(made, latency, [] if used == choice else [_because(used)])
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
    """Forms by estimated time, then ever plainer ones; equal ones once."""
    forms = [(full, choice)]
    if any(name in full.report.rewrites for name in _COSTLY):
        forms.append((rewrite(choice.plain), choice.plain))
        forms.sort(key=lambda form: form[0].report.after.estimate)  # equal estimates keep their order
    yield from forms
    seen = [made.model for made, _ in forms]
    for plainer in choice.plainer():
        made = rewrite(plainer)
        if made.model not in seen:
            seen.append(made.model)
            yield made, plainer


def _because(used: Choice) -> str:
    return f"{used.what}, because the result would be slower otherwise"


def _timed(made: Simplified, latency: Latency | None, notes: list[str]) -> Simplified:
    report = dataclasses.replace(made.report, latency=latency, notes=[*made.report.notes, *notes])
    return Simplified(made.model, report)
