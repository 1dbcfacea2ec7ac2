"""An independent checker of certificates: it reads two ONNX files and a proof, and says whether the statement holds.

It needs numpy and onnx, and imports nothing else of redy; this folder can be copied out and run alone. Read it in this
order: rounding, space, affine, operators, graph, lines, backward, tree, networks, claims, encoding, proof.
"""

from .errors import Rejected, Unusable
from .proof import check

__all__ = ["Rejected", "Unusable", "check"]
