"""The report of a reduction: JSON (with its schema), a table on the terminal and an HTML page."""

from redy.reduction import Measured
from redy.report.page import page
from redy.report.summary import File, LayerRow, layer_rows, read_report, report, schema
from redy.report.table import listed, show

__all__ = ["File", "LayerRow", "Measured", "layer_rows", "listed", "page", "read_report", "report", "schema", "show"]
