"""Rewriting: network -> network, or a refusal with its reason. Rests on findings, never on the search for them."""

from redy.rewrite.dense import Refusal
from redy.rewrite.facts import Facts
from redy.rewrite.findings import apply_findings, is_channel
from redy.rewrite.fuse import fuse
from redy.rewrite.round import round_weights
from redy.rewrite.shrink import Shrunk, shrink

__all__ = ["Facts", "Refusal", "Shrunk", "apply_findings", "fuse", "is_channel", "round_weights", "shrink"]
