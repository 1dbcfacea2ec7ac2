"""What `simplify` did and what it left, as types."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import onnx

from redy.simplify.check import Deviation
from redy.simplify.cost import Cost
from redy.simplify.latency import Latency


class Why(enum.Enum):
    """Why channels stay that are constant or that nobody reads; the text goes before the name of a node or tensor."""

    WALL = "read by"
    OUTPUT = "an output of the model or read by a subgraph:"
    TIED = "tied to channels that are live:"
    CONSTANT = "a constant that its reader cannot take in:"
    SHAPE = "kept so that channels stay a product, groups or heads of one size:"
    BLOCK = "kept to fill a block of channels that the runtime computes in any case"
    UNSETTLED = "kept by a limit on the rewrites"


class Dead(enum.Enum):
    """What is dead about a channel."""

    ZERO = "zero"
    CONSTANT = "constant"
    UNREAD = "read by nobody"


@dataclass(frozen=True)
class LayerChange:
    """One layer (convolution or matrix product): output channels before and after; 0 after means that it is gone."""

    name: str
    op: str
    before: int
    after: int
    constants: int = 0


@dataclass(frozen=True)
class Stayed:
    """Dead channels of one layer that stay for one reason.

    Attributes:
        layer: the layer's name.
        channels: how many of its channels stay for this reason.
        of: channels that the layer has in the result.
        dead: what is dead about them.
        why: the reason.
        where: the node or tensor that is the reason; empty where there is none.
        detail: what more is known of that node, e.g. why it is not followed.
    """

    layer: str
    channels: int
    of: int
    dead: Dead
    why: Why
    where: str = ""
    detail: str = ""

    @property
    def text(self) -> str:
        """One line for the terminal."""
        count = f"{self.layer}: {self.channels} of {self.of} channels"
        verb = f"{'is' if self.channels == 1 else 'are'} {self.dead.value} and stay{'s' if self.channels == 1 else ''}"
        reason = f"{self.why.value} {self.where}".strip()
        return f"{count} {verb}: {reason}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class Scattered:
    """Unstructured sparsity: the share of a layer's weights that are zero inside channels that stay."""

    layer: str
    share: float


@dataclass(frozen=True)
class Left:
    """What could not go: dead channels with the reasons why they stay, and unstructured sparsity."""

    stayed: list[Stayed] = field(default_factory=list)
    scattered: list[Scattered] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """What `simplify` did, as numbers.

    Attributes:
        left: what could not go.
        latency: both models' times, where they were measured.
    """

    layers: list[LayerChange]
    before: Cost
    after: Cost
    constants_propagated: int
    rewrites: dict[str, int]
    deviation: Deviation | None = None
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left: Left = field(default_factory=Left)
    latency: Latency | None = None


@dataclass(frozen=True)
class Simplified:
    """The simplified model and its report; `model` is the very model that came in where nothing could be done."""

    model: onnx.ModelProto
    report: Report
