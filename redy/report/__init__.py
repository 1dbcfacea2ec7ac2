"""The report of a reduction: JSON (with its schema) and a table on the terminal."""

from redy.reduction import Measured
from redy.report.summary import File, LayerRow, layer_rows, report, schema
from redy.report.table import show

__all__ = ["File", "LayerRow", "Measured", "layer_rows", "report", "schema", "show"]
