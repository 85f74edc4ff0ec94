"""The study as one page that opens anywhere: no server, no network, no other file."""

from __future__ import annotations

from shapeflow.report.load import load_run
from shapeflow.report.page import write_report
from shapeflow.report.study import report_study
from shapeflow.report.view import Embedding, Field, Finding, Mode, RunView

__all__ = ["Embedding", "Field", "Finding", "Mode", "RunView", "load_run", "report_study", "write_report"]
