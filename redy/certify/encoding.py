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
        fold: at which depths of a final tree the space is folded again.
        fits: how often slopes are fitted at a leaf, and `root_fits` on the whole box.
        share: 2^-share of its size is how little a unit may move to become its partner.
    """

    original: str
    reduced: str
    parts: tuple[Part, ...]
    fold: int = 6
    fits: int = 4
    root_fits: int = 0
    share: int = 36

    def text(self) -> str:
        """The header's one line of JSON."""
        numbers = {k: getattr(self, k) for k in ("fold", "fits", "root_fits", "share")}
        parts = [{"low": hexed(p.low), "high": hexed(p.high), **_claim(p.claim)} for p in self.parts]
        document = {"original": self.original, "reduced": self.reduced, **numbers, "parts": parts}
        return json.dumps(document, separators=(",", ":"))


def hexed(values: Array) -> list[str]:
    """float64 numbers as hexadecimal text."""
    return [float(v).hex() for v in values.ravel()]


def _claim(claim: Claim) -> dict[str, Any]:
    match claim:
        case Within():
            return {"within": hexed(claim.error)}
        case SameWinner():
            return {"same_winner": claim.winner, "margin": float(claim.margin).hex()}
        case Property():
            names = ("inputs", "outputs", "constants")
            return {
                "unsafe": [
                    {**{n: hexed(getattr(u, n)) for n in names}, "strict": u.strict.tolist()} for u in claim.unsafe
                ]
            }
        case _:
            raise TypeError(claim)


def pack(header: Header, body: bytes) -> bytes:
    """The bytes of a certificate."""
    return MAGIC + zlib.compress(header.text().encode() + b"\n" + body, 9)


def unpack(data: bytes) -> tuple[Header, Body]:
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
        return _header(json.loads(line)), Body(body)
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise Unusable(f"cannot be read as a certificate: {type(error).__name__}: {error}") from None


def _header(given: dict[str, Any]) -> Header:
    most = {"fold": 255, "fits": 64, "root_fits": 64, "share": 1000}
    numbers = {name: _integer(given[name], most[name]) for name in most}
    if not numbers["fold"]:
        raise ValueError("fold is 0")
    original, reduced, parts = given["original"], given["reduced"], tuple(_part(p) for p in given["parts"])
    if not parts:
        raise ValueError("nothing is claimed")
    if not isinstance(original, str) or not isinstance(reduced, str):
        raise ValueError("a digest must be text")  # noqa: TRY004 - what a file holds is a value
    return Header(original, reduced, parts, **numbers)


def _integer(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{value!r} is no integer from 0 to {most}")
    return value


def _numbers(given: list[str]) -> Array:
    values = np.array([float.fromhex(v) for v in given], dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    return values


def _part(given: dict[str, Any]) -> Part:
    low, high = _numbers(given["low"]), _numbers(given["high"])
    if low.shape != high.shape or not (low <= high).all():
        raise ValueError("the box is empty")
    claim: Claim
    if "within" in given:
        claim = Within(_numbers(given["within"]))
    elif "same_winner" in given:
        if given["same_winner"] not in {"max", "min"}:
            raise ValueError("the winner is max or min")
        claim = SameWinner(given["same_winner"], float(_numbers([given["margin"]])[0]))
    else:
        claim = Property(tuple(_unsafe(u) for u in given["unsafe"]))
    return Part(low, high, claim)


def _unsafe(given: dict[str, Any]) -> Unsafe:
    constants, strict = _numbers(given["constants"]), given["strict"]
    if not constants.size or len(strict) != constants.size or not all(type(s) is bool for s in strict):
        raise ValueError("every constraint needs a constant and says whether it is strict")
    matrices = [_numbers(given[name]).reshape(constants.size, -1) for name in ("inputs", "outputs")]
    return Unsafe(matrices[0], matrices[1], constants, np.array(strict, dtype=bool))


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

    def tree(self) -> bytes:
        """The bytes up to the last node of a tree."""
        rest = np.frombuffer(self.data, np.uint8)[self.at :]
        end = np.flatnonzero(np.cumsum(np.where(rest == LEAF, -1, 1)) == -1)
        if not len(end):
            raise Rejected("a tree is not complete")
        return self._take(int(end[0]) + 1)

    def end(self) -> None:
        """Raise Rejected unless all bytes were taken."""
        if self.at != len(self.data):
            raise Rejected("bytes follow after the last tree")


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
