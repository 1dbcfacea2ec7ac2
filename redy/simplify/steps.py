"""The rewrites of one run in order, so that any first part of them can be repeated alone."""

from __future__ import annotations

from collections import Counter


class Steps:
    """Asked before each rewrite; says no after `limit` of them."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.asked: list[tuple[str, str]] = []
        self.applied: list[tuple[str, str]] = []

    def allow(self, rewrite: str, where: str) -> bool:
        """Whether `rewrite` may be applied at the node or tensor `where`."""
        self.asked.append((rewrite, where))
        if self.limit is not None and len(self.asked) > self.limit:
            return False
        self.applied.append((rewrite, where))
        return True

    def counts(self) -> dict[str, int]:
        """How often each rewrite was applied."""
        return dict(Counter(rewrite for rewrite, _ in self.applied))

    def name_of(self, number: int) -> str:
        """The rewrite with this number, counted from 1, and where it was applied."""
        if not 0 < number <= len(self.asked):
            return "unknown"
        rewrite, where = self.asked[number - 1]
        return f"{rewrite} at {where}"
