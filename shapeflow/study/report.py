"""A study's tables to its page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def report(study_dir: str | Path, settings: Mapping[str, Any]) -> None:
    """The study's page."""
    from shapeflow.report import report_study

    report_study(Path(study_dir), title=settings["title"], label=settings["label"])
