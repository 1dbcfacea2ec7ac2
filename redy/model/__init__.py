"""What a network is: boxes, piecewise-linear functions, operators, nodes (float64, immutable)."""

from redy.model.box import Array, Box
from redy.model.carried import Elementwise, Foreign, MaxPool, Product
from redy.model.functions import PiecewiseLinear
from redy.model.network import Activate, Affine, Network, Node, Port, Term
from redy.model.operators import Dense, Gather, Operator, Positionwise, Scale, Shape, identity

__all__ = [
    "Activate",
    "Affine",
    "Array",
    "Box",
    "Dense",
    "Elementwise",
    "Foreign",
    "Gather",
    "MaxPool",
    "Network",
    "Node",
    "Operator",
    "PiecewiseLinear",
    "Port",
    "Positionwise",
    "Product",
    "Scale",
    "Shape",
    "Term",
    "identity",
]
