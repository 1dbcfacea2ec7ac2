"""The digest of a network: equal networks, bit for bit, have equal digests."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping

import numpy as np

from redy.model.network import Network, Node


def network_digest(network: Network) -> str:
    """SHA-256 over names, shapes, operators, weights and ports of the network, in hexadecimal."""
    hasher = hashlib.sha256()
    for part in _parts(network):
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.hexdigest()


def content_digest(node: Node) -> bytes:
    """SHA-256 over what a node computes: its operators, functions and numbers, without its name and its sources."""
    hasher = hashlib.sha256(type(node).__name__.encode())
    for field in dataclasses.fields(node):
        if field.name in {"name", "source", "left", "right", "inputs"}:
            continue
        value = getattr(node, field.name)
        if field.name == "terms":
            value = tuple(term.operator for term in value)
        for part in _parts(value):
            hasher.update(len(part).to_bytes(8, "little"))
            hasher.update(part)
    return hasher.digest()


def _parts(value: object) -> Iterator[bytes]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__.encode()
        for field in dataclasses.fields(value):
            if field.name == "head" and not getattr(value, field.name):
                continue  # most networks have none, and their digests are those of before there were heads
            yield from _parts(getattr(value, field.name))
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype.str}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield from _parts(key)
            yield from _parts(value[key])
    elif isinstance(value, tuple | list):
        yield f"({len(value)}".encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, bytes):
        yield value
    elif not callable(value):
        # A function is described by the operator and the attributes beside it.
        yield repr(value).encode()
