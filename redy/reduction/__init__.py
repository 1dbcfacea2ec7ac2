"""One network, one box -> Reduction."""

from redy.reduction.criteria import CRITERIA, Criterion
from redy.reduction.measure import Measured
from redy.reduction.pipeline import reduce, replay
from redy.reduction.problem import Guarantee, Known, Options, Problem, Reduction
from redy.reduction.write import Written, write_reduction

__all__ = [
    "CRITERIA",
    "Criterion",
    "Guarantee",
    "Known",
    "Measured",
    "Options",
    "Problem",
    "Reduction",
    "Written",
    "reduce",
    "replay",
    "write_reduction",
]
