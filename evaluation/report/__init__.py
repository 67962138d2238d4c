"""What a comparison leaves behind: the page, tables, pictures, raw rounds and TensorBoard curves."""

from evaluation.report.tables import text_table
from evaluation.report.write import write_report

__all__ = ["text_table", "write_report"]
