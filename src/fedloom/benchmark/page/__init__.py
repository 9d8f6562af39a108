"""The page of a run directory, a folder of runs or a suite: `write_report` makes one self-contained HTML file."""

from fedloom.benchmark.page.page import headlines, write_report

__all__ = ["headlines", "write_report"]
