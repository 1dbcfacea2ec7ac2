"""Exact simplification of any ONNX graph at the granularity of channels: no input box, no data, no ratio."""

from redy.simplify.pipeline import simplify
from redy.simplify.report import LayerChange, Left, Report, Scattered, Simplified, Stayed
from redy.simplify.straighten import ChannelFinding

__all__ = ["ChannelFinding", "LayerChange", "Left", "Report", "Scattered", "Simplified", "Stayed", "simplify"]
