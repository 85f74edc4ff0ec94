"""A run's folder as the page shows it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from shapeflow.errors import few
from shapeflow.io import read_shape
from shapeflow.report.findings import load_components, load_fields, load_findings
from shapeflow.report.geodesics import geodesic_findings, load_geodesic
from shapeflow.report.text import cell, outcome, percent
from shapeflow.report.view import Embedding, Finding, RunView
from shapeflow.statistics import classical_scaling
from shapeflow.tables import (
    DistanceMatrix,
    atlas_table,
    distance_matrix,
    failed,
    matching_table,
    read_table,
    subject_labels,
)


def load_run(run_dir: Path, *, page: Path | None = None, geodesics: Sequence[str] = ()) -> RunView:
    """Read `results/<dataset>/runs/<id>`; links lead from `page` (its file) to the run's own files. `geodesics` are the folders to show."""
    run_dir = Path(run_dir)
    matching = matching_table([run_dir]) if (run_dir / "matching.parquet").is_file() else pd.DataFrame()
    atlas = atlas_table([run_dir])
    rows = matching if len(matching) else atlas
    first = rows.iloc[0] if len(rows) else {}
    matrix = distance_matrix(matching) if len(matching) else None
    history = next((p for p in (run_dir / "atlas" / f"history.{e}" for e in ("parquet", "csv")) if p.is_file()), None)
    curve = read_table(history) if history is not None else None
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
        matrix_note=_matched(matching, matrix) if matrix is not None else "",
        template=mean,
        history=curve,
        history_note=_convergence(curve, atlas),
        embeddings=(*(e for e in [_scaling(matrix)] if e is not None), *components),
        modes=(*modes, *map(load_geodesic, made)),
        fields=load_fields(run_dir / "statistics", mean),
        findings=(*_failures(matching, atlas), *load_findings(run_dir / "statistics"), *geodesic_findings(made)),
        links=_links(run_dir, page),
    )


def _matched(matching: pd.DataFrame, matrix: DistanceMatrix) -> str:
    """How the matchings ended, and what a hole in the map means."""
    between = matching[matching["source"] != matching["target"]]
    holes = np.isnan(matrix.values).any()
    return outcome(between, "matchings", "solver.max_iter") + (" White: no distance is known." if holes else "")


def _failures(matching: pd.DataFrame, atlas: pd.DataFrame) -> tuple[Finding, ...]:
    """Which matchings failed and why, the first of them in a table."""
    lost = [rows[failed(rows)] for rows in (matching, atlas) if len(rows)]
    named = [
        {
            "matching": f"{row['source']} → {row['target']}" if "source" in row else f"template → {row['subject']}",
            "reason": str(row["status"]).removeprefix("failed: "),
        }
        for rows in lost
        for row in rows.to_dict("records")
    ]
    if not named:
        return ()
    text = f"{cell(len(named))} failed{', of which these are the first' if len(named) > 8 else ''}; the others do not depend on them."
    return (Finding("Failures", text, pd.DataFrame(named[:8])),)


def _convergence(history: pd.DataFrame | None, atlas: pd.DataFrame) -> str:
    """Why the atlas stopped, and how much its last iterations still changed."""
    if history is None or "objective" not in history or not len(atlas):
        return ""
    objective = history["objective"].to_numpy(dtype=float)
    status, last = str(atlas["status"].iloc[0]), max(1, len(objective) // 5)
    stopped = {"converged": "Converged", "max_iter": "Stopped by atlas.max_iter"}.get(status, f"Ended ({status})")
    bayesian = "noise_std" in history
    what = (
        f"Minus the log posterior; noise σ = {history['noise_std'].iloc[-1]:.3g}"
        if bayesian
        else "Mean over subjects of γH + A"
    )
    text = f"{what}. {stopped} after {cell(int(atlas['iterations'].max()))} iterations"
    if len(objective) > last and bayesian:
        text += f"; the last {last} lowered it by {objective[-1 - last] - objective[-1]:.3g}"
    elif len(objective) > last:
        text += f"; the last {last} took {percent((objective[-1 - last] - objective[-1]) / abs(objective[-1 - last]))} off the objective"
    return f"{text}.{_missed(atlas)}"


def _missed(atlas: pd.DataFrame) -> str:
    """Subjects whose surface the deformed template is no closer to than the template is: means and components say nothing of their shapes."""
    if not {"surface_mean", "surface_mean_before"} <= set(atlas.columns):
        return ""
    missed = atlas.loc[atlas["surface_mean"] >= atlas["surface_mean_before"], "subject"].astype(str).tolist()
    if not missed:
        return ""
    return (
        f" It has not reached {len(missed)} of {len(atlas)} subjects, whose surface is no closer than before: {few(missed)}. "
        "Wider attachment.widths see farther; more of atlas.max_iter goes on."
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
    share = [f"axis {i + 1} ({percent(e)})" for i, e in enumerate(scaling.explained)]
    left_out = len(matrix.names) - len(keep)
    note = (
        f"The plane keeps {percent(sum(scaling.explained[:2]))} of what is Euclidean of the distances; negative eigenvalues, which no plane "
        f"shows, are {percent(scaling.negative)} of all."
    )
    if left_out:
        note += f" {left_out} subject{'s are' if left_out > 1 else ' is'} left out because matchings failed."
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
