"""The page a person looks at after a run: one self-contained HTML file."""

from palavra.report.page import write_report

__all__ = ["write_report"]
