"""Meshes to prepared meshes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def prepare(config: Mapping[str, Any], out: str | Path, raw: str | Path | None = None) -> None:
    """Meshes ready to be matched, and their tables. Whether a study may go on with them is `check`'s to say: this job's tables outlive the answer."""
    from shapeflow.prepare import Dataset, Prepare, Unusable, prepare_cohort
    from shapeflow.study.files import write_text

    data = dict(config["dataset"])
    if raw is not None:
        data = {
            "name": data["name"],
            "path": str(raw),
            "pattern": "*.vtk",
            "labels": "labels.csv",
            "landmarks": "{id}.landmarks.csv",
        }
    shutil.rmtree(out, ignore_errors=True)  # shapes of a subject that is gone, or bad by now
    try:
        prepare_cohort(Dataset(**data), Prepare(**config["prepare"]), out)
    except Unusable:
        write_text(Path(out) / "subjects.csv", "subject\n")
