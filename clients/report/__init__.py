"""Reports: what a run's trace and its campaign's events say, as a page, a picture, a table and JSON."""

from __future__ import annotations

from clients.report.record import RunRecord, collect
from clients.report.writing import ReportFiles, write_report

__all__ = ["ReportFiles", "RunRecord", "collect", "write_report"]
