"""Whether a study goes on with its prepared cohort: a step of its own, so that the tables that say why not are there when it stops."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shapeflow.errors import MeshError, ShapeflowError
from shapeflow.study.files import write_text


def check(config: Mapping[str, Any], subjects: Sequence[str], prepared: str | Path) -> None:
    """cohort.json, and for every subject a fingerprint that changes when its prepared files do. Raises when subjects that cannot be used stop the study."""
    from shapeflow.io import read_shape
    from shapeflow.prepare import summary

    folder = Path(prepared)
    findings, n = _found(folder)
    files = {name: folder / f"{name}.vtk" for name in subjects}
    shapes = {name: read_shape(path) for name, path in files.items() if path.is_file()}
    wrong = any(f.severity == "error" for f in findings)
    if wrong and (config["prepare"]["on_bad"] == "stop" or not shapes):
        raise MeshError(summary.refusal(findings, n, folder))
    if any(f.severity != "info" for f in findings):
        told = summary.text(findings, n, remarks=False)
        print(f"\nshapeflow: {told}\n  all findings: {folder / 'findings.csv'}\n", file=sys.stderr)
    if len(shapes) < 2:
        raise ShapeflowError(
            f"preparation left {len(shapes)} of {len(subjects)} subjects; a study compares two or more: see {folder / 'quality.csv'}"
        )
    first = next(iter(shapes.values()))
    # two digits: a small edit of one mesh changes no width that is relative to the cohort's size
    size = float(f"{statistics.median(s.size() for s in shapes.values()):.2g}")
    facts = {
        "size": size,
        "dimension": first.points.shape[1],
        "simplex": first.simplices.shape[1],
        "example": next(iter(shapes)),
    }
    write_text(folder / "cohort.json", json.dumps(facts, indent=1) + "\n")
    for name in subjects:
        write_text(folder / "fingerprints" / f"{name}.txt", _fingerprint(folder, name) + "\n")


def _found(folder: Path) -> tuple[list[Any], int]:
    """Findings of a preparation, and of how many subjects."""
    import pandas as pd

    from shapeflow.prepare import Finding

    rows = pd.read_csv(folder / "findings.csv", keep_default_na=False, dtype=str).to_dict("records")
    n = len(pd.read_csv(folder / "quality.csv", usecols=["subject"]))
    return [Finding(**{str(k): v for k, v in row.items()}) for row in rows], n


def _fingerprint(folder: Path, name: str) -> str:
    """SHA-256 of what a matching reads of a subject, or that there is nothing to read."""
    import hashlib

    files = [folder / f"{name}.vtk", folder / f"{name}.landmarks.csv"]
    if not files[0].is_file():
        return "left out"
    return hashlib.sha256(b"".join(f.read_bytes() for f in files if f.is_file())).hexdigest()
