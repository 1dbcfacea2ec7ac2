"""Rewriting: network -> network, or a refusal that gives its reason. Rests on findings, never on the search for them."""

from redy.rewrite.dense import Refusal
from redy.rewrite.findings import apply_findings
from redy.rewrite.fuse import fuse
from redy.rewrite.shrink import Shrunk, shrink

__all__ = ["Refusal", "Shrunk", "apply_findings", "fuse", "shrink"]
