"""One network, one box -> Reduction."""

from redy.reduction.pipeline import CRITERIA, reduce, replay
from redy.reduction.problem import Criterion, Guarantee, Known, Options, Problem, Reduction

__all__ = ["CRITERIA", "Criterion", "Guarantee", "Known", "Options", "Problem", "Reduction", "reduce", "replay"]
