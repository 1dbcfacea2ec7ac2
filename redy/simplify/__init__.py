"""Exact simplification of any ONNX graph at the granularity of channels: no input box, no data, no ratio."""

from redy.simplify.pipeline import LayerChange, Report, Simplified, simplify
from redy.simplify.straighten import ChannelFinding

__all__ = ["ChannelFinding", "LayerChange", "Report", "Simplified", "simplify"]
