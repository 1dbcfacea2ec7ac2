"""What a network is: boxes, piecewise-linear functions, operators, nodes (float64, immutable)."""

from redy.model.box import Array, Box
from redy.model.carried import Elementwise, Foreign, MaxPool, Product
from redy.model.functions import PiecewiseLinear
from redy.model.network import Activate, Affine, Network, Node, Port, Term
from redy.model.operators import Dense, Gather, Operator, Positionwise, Scale, Shape, identity
from redy.model.verdict import Finding, Line, Proof, Proved, Refuted, Unit, Unknown, Verdict

__all__ = [
    "Activate",
    "Affine",
    "Array",
    "Box",
    "Dense",
    "Elementwise",
    "Finding",
    "Foreign",
    "Gather",
    "Line",
    "MaxPool",
    "Network",
    "Node",
    "Operator",
    "PiecewiseLinear",
    "Port",
    "Positionwise",
    "Product",
    "Proof",
    "Proved",
    "Refuted",
    "Scale",
    "Shape",
    "Term",
    "Unit",
    "Unknown",
    "Verdict",
    "identity",
]
