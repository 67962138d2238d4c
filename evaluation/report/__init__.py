"""What a comparison leaves behind: the page, tables, pictures, raw rounds and TensorBoard curves."""

from evaluation.report.write import text_table, write_report

__all__ = ["text_table", "write_report"]
