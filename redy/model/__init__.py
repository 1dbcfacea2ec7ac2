"""What a network is: boxes, piecewise-linear functions, operators, nodes (float64, immutable)."""

from redy.model.box import Array, Box
from redy.model.carried import Elementwise, Foreign, MaxPool, Product
from redy.model.claims import Claim, Comparison, Phase, SameWinner, Winner, Within
from redy.model.functions import PiecewiseLinear
from redy.model.limits import Limits
from redy.model.network import Activate, Affine, Network, Node, Port, Term
from redy.model.operators import Dense, Gather, Operator, Positionwise, Scale, Shape, identity
from redy.model.property import Conjunction, Property
from redy.model.verdict import (
    BoxTree,
    Evidence,
    Finding,
    Line,
    LinearBounds,
    Multipliers,
    PhaseTree,
    Proof,
    Proved,
    Refuted,
    Trusted,
    Unit,
    Unknown,
    Verdict,
)

__all__ = [
    "Activate",
    "Affine",
    "Array",
    "Box",
    "BoxTree",
    "Claim",
    "Comparison",
    "Conjunction",
    "Dense",
    "Elementwise",
    "Evidence",
    "Finding",
    "Foreign",
    "Gather",
    "Limits",
    "Line",
    "LinearBounds",
    "MaxPool",
    "Multipliers",
    "Network",
    "Node",
    "Operator",
    "Phase",
    "PhaseTree",
    "PiecewiseLinear",
    "Port",
    "Positionwise",
    "Product",
    "Proof",
    "Property",
    "Proved",
    "Refuted",
    "SameWinner",
    "Scale",
    "Shape",
    "Term",
    "Trusted",
    "Unit",
    "Unknown",
    "Verdict",
    "Winner",
    "Within",
    "identity",
]
