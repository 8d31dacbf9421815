"""A study's report: one page, one text, one table and its plots, from the results and the runs."""

from simsiam_zoo.studies.report.write import write_report

__all__ = ["write_report"]
