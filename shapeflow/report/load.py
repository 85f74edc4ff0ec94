"""A run's folder as the page shows it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from shapeflow.io import read_shape
from shapeflow.report.findings import load_components, load_fields, load_findings
from shapeflow.report.geodesics import geodesic_findings, load_geodesic
from shapeflow.report.view import Embedding, RunView
from shapeflow.statistics import classical_scaling
from shapeflow.tables import DistanceMatrix, atlas_table, distance_matrix, matching_table, read_table, subject_labels


def load_run(run_dir: Path, *, page: Path | None = None, geodesics: Sequence[str] = ()) -> RunView:
    """Read `results/<dataset>/runs/<id>`; links lead from `page` (its file) to the run's own files. `geodesics` are the folders to show."""
    run_dir = Path(run_dir)
    matching = matching_table([run_dir]) if (run_dir / "matching.parquet").is_file() else pd.DataFrame()
    atlas = atlas_table([run_dir])
    rows = matching if len(matching) else atlas
    first = rows.iloc[0] if len(rows) else {}
    matrix = distance_matrix(matching) if len(matching) else None
    history = next((p for p in (run_dir / "atlas" / f"history.{e}" for e in ("parquet", "csv")) if p.is_file()), None)
    template = run_dir / "atlas" / "template.vtk"
    mean = read_shape(template) if template.is_file() else None
    components, modes = load_components(run_dir / "statistics")
    made = [
        run_dir / "geodesic" / name for name in geodesics if (run_dir / "geodesic" / name / "summary.csv").is_file()
    ]
    return RunView(
        run=str(first["run"]) if len(rows) else run_dir.name,
        kernel=str(first["kernel"]) if len(rows) else "",
        sigma=float(first["sigma"]) if len(rows) else float("nan"),
        normalization=str(first["normalization"]) if len(rows) else "",
        labels=subject_labels(rows) if len(rows) else None,
        matrix=matrix,
        template=mean,
        history=read_table(history) if history is not None else None,
        embeddings=(*(e for e in [_scaling(matrix)] if e is not None), *components),
        modes=(*modes, *map(load_geodesic, made)),
        fields=load_fields(run_dir / "statistics", mean),
        findings=(*load_findings(run_dir / "statistics"), *geodesic_findings(made)),
        links=_links(run_dir, page),
    )


def _scaling(matrix: DistanceMatrix | None) -> Embedding | None:
    """Classical scaling of the subjects whose distances are all known."""
    if matrix is None:
        return None
    keep = _complete_subset(matrix.values)
    if len(keep) < 3:
        return None
    kept = matrix.restricted([matrix.names[i] for i in keep])
    scaling = classical_scaling(kept.values)
    share = [f"axis {i + 1} ({e:.0%})" for i, e in enumerate(scaling.explained)]
    left_out = len(matrix.names) - len(keep)
    note = f"Negative eigenvalues: {scaling.negative:.0%} of the total; the plane shows what is Euclidean of the distances."
    if left_out:
        note += f" {left_out} subjects are left out because matchings failed."
    return Embedding("distances (classical scaling)", kept.names, scaling.coordinates, (share[0], share[1]), note)


def _complete_subset(values: np.ndarray) -> list[int]:
    """Indices of a subset without missing distances: the subject that misses most is dropped until none is missing."""
    keep = list(range(len(values)))
    while keep:
        missing = np.isnan(values[np.ix_(keep, keep)]).sum(axis=1)
        if not missing.any():
            break
        keep.pop(int(np.argmax(missing)))
    return keep


def _links(run_dir: Path, page: Path | None) -> dict[str, str]:
    start = Path(page).parent if page is not None else run_dir
    names = {
        "configuration": "config.yaml",
        "matchings": "matching.parquet",
        "distances": "distances.parquet",
        "template": "atlas/template.vtk",
        "atlas table": "atlas/atlas.parquet",
        "tests": "statistics/tests.csv",
        "scores": "statistics/scores.csv",
    }
    found = {title: run_dir / name for title, name in names.items() if (run_dir / name).is_file()}
    return {title: Path(os.path.relpath(path, start)).as_posix() for title, path in found.items()}
