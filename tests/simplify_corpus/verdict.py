"""What is wrong with a simplified model, if anything: the one yardstick of tests and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from .builder import Built
from .compare import relative_error
from .cost import multiply_adds, parameters

SLACK = 1.02
"""How far above the ideal multiply-adds still counts as reaching them."""


@dataclass(frozen=True)
class Verdict:
    """Figures of one simplified model; `wrong` lists every broken promise."""

    wrong: tuple[str, ...]
    error: float
    before: int
    after: int
    parameters_before: int
    parameters_after: int
    ideal: int
    ideal_with_carriers: int

    @property
    def reached(self) -> bool:
        """Whether the multiply-adds are within the slack of the ideal with carriers."""
        return self.after <= SLACK * self.ideal_with_carriers

    @property
    def reached_without_carriers(self) -> bool:
        """Whether they are within the slack of the ideal that stores no carrier channel."""
        return self.after <= SLACK * self.ideal


def judge(built: Built, after: onnx.ModelProto, tolerance: float = 1e-4) -> Verdict:
    """Compare `after` with the model it came from."""
    before = built.model
    wrong = [*_interface(before, after)]
    try:
        onnx.checker.check_model(after, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as fault:
        wrong.append(f"checker: {str(fault).splitlines()[0]}")
    error = relative_error(before, after, built.shapes)
    if not error <= tolerance:
        wrong.append(f"relative error {error:.2g}")
    costs = [multiply_adds(m, built.shapes[0]) for m in (before, after)]
    sizes = [parameters(m) for m in (before, after)]
    if costs[1] > costs[0]:
        wrong.append(f"multiply-adds grew from {costs[0]} to {costs[1]}")
    if sizes[1] > sizes[0]:
        wrong.append(f"parameters grew from {sizes[0]} to {sizes[1]}")
    return Verdict(tuple(wrong), error, *costs, *sizes, built.ideal, built.ideal_with_carriers)


def _interface(before: onnx.ModelProto, after: onnx.ModelProto) -> list[str]:
    wrong = []
    for what in ("input", "output"):
        old, new = (
            [(v.name, v.type.SerializeToString(deterministic=True)) for v in getattr(m.graph, what)]
            for m in (before, after)
        )
        if old != new:
            wrong.append(f"{what}s changed: {[n for n, _ in old]} to {[n for n, _ in new]}")
    imports = [{(o.domain, o.version) for o in m.opset_import} for m in (before, after)]
    if imports[0] != imports[1]:
        wrong.append(f"opset imports changed from {imports[0]} to {imports[1]}")
    return wrong
