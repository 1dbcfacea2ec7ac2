"""The bytes of a certificate (docs/certificate.md): a line of magic, then one zlib stream of a header and a body."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .claims import Claim, Property, SameWinner, Unsafe, Within
from .errors import Rejected, Unusable
from .space import Array, Ints
from .tree import LEAF

MAGIC = b"redy-certificate 1\n"
MOST = 2**26
"""Bytes that a certificate may unpack to."""
NUMBERS = {"fits": (0, 64), "root_fits": (0, 64), "share": (0, 1000)}
"""Integers of the header with the smallest and the largest value."""


@dataclass(frozen=True)
class Part:
    """A box (n,), and what is claimed for it."""

    low: Array
    high: Array
    claim: Claim


@dataclass(frozen=True)
class Header:
    """What a certificate states, and how its body is to be read.

    Attributes:
        original, reduced: SHA-256 of both files in hexadecimal digits; "" instead of the second for a property.
        parts: the statement.
        fits: how often slopes are fitted at a leaf, and `root_fits` on the whole box.
        share: see `networks.Walker`: 2^-share.
    """

    original: str
    reduced: str
    parts: tuple[Part, ...]
    fits: int = 4
    root_fits: int = 0
    share: int = 36


def unpack(data: bytes) -> tuple[Header, bytes]:
    """Header and body.

    Raises:
        Unusable: these are not the bytes of a certificate.
    """
    if not data.startswith(MAGIC):
        raise Unusable("is not a certificate of version 1")
    try:
        stream = zlib.decompressobj()
        text = stream.decompress(data[len(MAGIC) :], MOST)
        if not stream.eof or stream.unused_data:
            raise Unusable("is cut short, continues after its end, or unpacks to more than 64 MiB")
        line, _, body = text.partition(b"\n")
        return _header(json.loads(line)), body
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise Unusable(f"cannot be read as a certificate: {type(error).__name__}: {error}") from None


def _header(given: dict[str, Any]) -> Header:
    for name, (least, most) in NUMBERS.items():
        if type(given[name]) is not int or not least <= given[name] <= most:
            raise ValueError(f"{name} is no integer from {least} to {most}")
    texts, parts = [str(given[name]) for name in ("original", "reduced")], tuple(_part(p) for p in given["parts"])
    if not parts:
        raise ValueError("nothing is claimed")
    return Header(texts[0], texts[1], parts, **{name: given[name] for name in NUMBERS})


def numbers(text: str) -> Array:
    """float64 numbers from the hexadecimal digits of their bytes, the highest first."""
    values = np.frombuffer(bytes.fromhex(text), ">f8").astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    return values


def _part(given: dict[str, Any]) -> Part:
    low, high = numbers(given["low"]), numbers(given["high"])
    if low.shape != high.shape or not (low <= high).all():
        raise ValueError("the box is empty")
    claim: Claim
    if "within" in given:
        claim = Within(numbers(given["within"]))
    elif "same_winner" in given:
        if given["same_winner"] not in {"max", "min"}:
            raise ValueError("the winner is max or min")
        claim = SameWinner(given["same_winner"], float(numbers(given["margin"])[0]))
    else:
        claim = Property(tuple(_unsafe(u) for u in given["unsafe"]))
    return Part(low, high, claim)


def _unsafe(given: dict[str, Any]) -> Unsafe:
    constants, strict = numbers(given["constants"]), given["strict"]
    if not constants.size or len(strict) != constants.size or not set(strict) <= {"0", "1"}:
        raise ValueError("every constraint needs a constant and says whether it is strict")
    return Unsafe(numbers(given["matrix"]).reshape(constants.size, -1), constants, np.array([s == "1" for s in strict]))


class Body:
    """The bytes of phases, partners and trees, taken one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def _take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise Rejected("the certificate ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def phases(self, count: int) -> NDArray[np.uint8]:
        """Two bits a unit, the lowest bits of a byte first."""
        packed = np.frombuffer(self._take(-(-count // 4)), np.uint8)
        codes: NDArray[np.uint8] = ((packed[:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3).ravel().astype(np.uint8)
        if (codes == 3).any() or codes[count:].any():
            raise Rejected("a phase is none of unknown, active and inactive")
        return codes[:count]

    def partners(self, count: int) -> Ints:
        """Per unit zigzag(partner - the one before - 1) in bytes of seven bits; the one before the first is -1."""
        found, before = np.empty(count, np.int64), -1
        for k in range(count):
            value, shift, byte = 0, 0, 128
            while byte >= 128:
                byte = self._take(1)[0]
                value, shift = value | (byte & 127) << shift, shift + 7
                if shift > 35:
                    raise Rejected("the number of a partner is too large")
            before += 1 + (value >> 1 ^ -(value & 1))
            found[k] = before
        return found

    def tree(self) -> tuple[int, bytes]:
        """The fold period of a tree, and its bytes up to the last node."""
        fold = self._take(1)[0]
        if not fold:
            raise Rejected("a fold period is 0")
        rest = np.frombuffer(self.data, np.uint8)[self.at :]
        end = np.flatnonzero(np.cumsum(np.where(rest == LEAF, -1, 1)) == -1)
        if not len(end):
            raise Rejected("a tree is not complete")
        return fold, self._take(int(end[0]) + 1)
