"""A certificate's bytes, written as `redy.certify.encoding` reads them."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redy.certify.claims import Claim, Property, SameWinner, Within
from redy.certify.encoding import MAGIC, NUMBERS, Header
from redy.certify.space import Array, Ints


def pack(header: Header, body: bytes) -> bytes:
    """The bytes of a certificate."""
    return MAGIC + zlib.compress(content(header, body), 9)


def content(header: Header, body: bytes) -> bytes:
    """What is compressed: a line of JSON, then the body."""
    parts = [{"low": hexed(p.low), "high": hexed(p.high), **_claim(p.claim)} for p in header.parts]
    document = {"original": header.original, "reduced": header.reduced}
    document |= {name: getattr(header, name) for name in NUMBERS} | {"parts": parts}
    return json.dumps(document, separators=(",", ":")).encode() + b"\n" + body


def hexed(values: Array) -> str:
    """The hexadecimal digits of float64 numbers, the highest byte first."""
    return np.asarray(values, dtype=">f8").tobytes().hex()


def _claim(claim: Claim) -> dict[str, Any]:
    if isinstance(claim, Within):
        return {"within": hexed(claim.error)}
    if isinstance(claim, SameWinner):
        return {"same_winner": claim.winner, "margin": hexed(np.array([claim.margin]))}
    assert isinstance(claim, Property)
    return {
        "unsafe": [
            {
                "matrix": hexed(u.matrix),
                "constants": hexed(u.constants),
                "strict": "".join("01"[bool(s)] for s in u.strict),
            }
            for u in claim.sets
        ]
    }


def write_phases(codes: NDArray[np.uint8]) -> bytes:
    """The bytes that `Body.phases` reads."""
    padded = np.append(codes, np.zeros(-len(codes) % 4, np.uint8)).reshape(-1, 4)
    return bytes((padded << np.array([0, 2, 4, 6], np.uint8)).sum(axis=1).astype(np.uint8))


def write_partners(partners: Ints) -> bytes:
    """The bytes that `Body.partners` reads."""
    out, before = bytearray(), -1
    for partner in partners.tolist():
        step, before = partner - before - 1, partner
        value = step << 1 if step >= 0 else (-step << 1) - 1
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
    return bytes(out)
