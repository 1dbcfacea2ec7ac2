"""The report of a reduction, as JSON and as a table."""
