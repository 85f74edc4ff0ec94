"""Meshes to prepared meshes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shapeflow.errors import ShapeflowError
from shapeflow.study.files import write_text


def prepare(config: Mapping[str, Any], subjects: Sequence[str], out: str | Path, raw: str | Path | None = None) -> None:
    """Meshes ready to be matched, their tables, and for every subject a fingerprint that changes when its prepared files do."""
    from shapeflow.io import read_shape
    from shapeflow.prepare import Dataset, Prepare, prepare_cohort

    out = Path(out)
    data = dict(config["dataset"])
    if raw is not None:
        data = {
            "name": data["name"],
            "path": str(raw),
            "pattern": "*.vtk",
            "labels": "labels.csv",
            "landmarks": "{id}.landmarks.csv",
        }
    prepare_cohort(Dataset(**data), Prepare(**config["prepare"]), out)
    _tell(out)
    shapes = {name: read_shape(out / f"{name}.vtk") for name in subjects if (out / f"{name}.vtk").is_file()}
    if len(shapes) < 2:
        raise ShapeflowError(
            f"preparation left {len(shapes)} of {len(subjects)} subjects; a study compares two or more: see {out / 'quality.csv'}"
        )
    first = next(iter(shapes.values()))
    # two digits: a small edit of one mesh changes no width that is relative to the cohort's size
    size = float(f"{_median(_diagonal(s.points) for s in shapes.values()):.2g}")
    facts = {
        "size": size,
        "dimension": first.points.shape[1],
        "simplex": first.simplices.shape[1],
        "example": next(iter(shapes)),
    }
    write_text(out / "cohort.json", json.dumps(facts, indent=1) + "\n")
    for name in subjects:
        write_text(out / "fingerprints" / f"{name}.txt", _fingerprint(out, name) + "\n")


def _tell(out: Path) -> None:
    """The warnings of a preparation, on the terminal: what nobody reads in a table before a night's run."""
    import sys

    import pandas as pd

    from shapeflow.prepare import Finding, summary

    rows = pd.read_csv(out / "findings.csv", keep_default_na=False, dtype=str).to_dict("records")
    findings = [Finding(**{str(k): v for k, v in row.items()}) for row in rows]
    if any(f.severity != "info" for f in findings):
        n = len(pd.read_csv(out / "quality.csv", usecols=["subject"]))
        print(
            f"\nshapeflow: {summary.text(findings, n, remarks=False)}\n  all findings: {out / 'findings.csv'}\n",
            file=sys.stderr,
        )


def _diagonal(points: Any) -> float:
    extent = points.max(axis=0) - points.min(axis=0)
    return float((extent @ extent) ** 0.5)


def _median(values: Any) -> float:
    import statistics

    return statistics.median(values)


def _fingerprint(folder: Path, name: str) -> str:
    """SHA-256 of what a matching reads of a subject, or that there is nothing to read."""
    import hashlib

    files = [folder / f"{name}.vtk", folder / f"{name}.landmarks.csv"]
    if not files[0].is_file():
        return "left out"
    return hashlib.sha256(b"".join(f.read_bytes() for f in files if f.is_file())).hexdigest()
