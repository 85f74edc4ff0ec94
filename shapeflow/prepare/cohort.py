"""The cohort: every subject in one frame, on disk.

subjects.csv                 subject, its labels, n_points, n_simplices, kind, dimension, scale, mirrored
quality.csv, .parquet        one row a subject: what was found, what was changed, what is left to decide
<subject>.vtk                the prepared shape
<subject>.full.vtk           the cleaned full mesh in the same frame; `simplex` and `weights` place its vertices on the prepared shape
<subject>.landmarks.csv      landmarks in the same frame
<subject>.transform.json     4x4 matrix from the file's coordinates to these, and its inverse
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shapeflow.errors import MeshError
from shapeflow.io import Landmarks, read_landmarks, read_shape, write_landmarks, write_shape
from shapeflow.io.files import replacing
from shapeflow.prepare.alignment import Alignment, align_cohort
from shapeflow.prepare.dataset import Dataset, Subject, scan
from shapeflow.prepare.options import Prepare
from shapeflow.prepare.subject import Staged, read_subject, stage
from shapeflow.prepare.transform import save_transform
from shapeflow.shape import Shape

log = logging.getLogger("shapeflow.prepare")


@dataclass(frozen=True, eq=False)
class Cohort:
    """Row i of the table, `subjects[i]`, `shapes[i]` and `landmarks[i]` belong together."""

    table: pd.DataFrame
    subjects: tuple[str, ...]
    shapes: tuple[Shape, ...]
    landmarks: tuple[np.ndarray | None, ...]


def prepare_cohort(dataset: Dataset, options: Prepare, out: Path) -> None:
    """Read, repair, resample and align every subject, and write them with their tables to `out`."""
    out = Path(out)
    subjects = scan(dataset)
    staged = [stage(read_subject(s, dataset), s.id, options) for s in subjects]
    marks = [_landmarks(s, t) for s, t in zip(subjects, staged, strict=True)]
    alignment = align_cohort([s.id for s in subjects], [t.shape for t in staged], marks, options)
    rows = [_write(out, s, t, m, alignment, i) for i, (s, t, m) in enumerate(zip(subjects, staged, marks, strict=True))]
    _write_table(out / "quality.csv", pd.DataFrame([r[1] for r in rows]))
    _write_table(out / "subjects.csv", pd.DataFrame([r[0] for r in rows]))


def load_cohort(out: str | Path) -> Cohort:
    """What `prepare_cohort` wrote."""
    out = Path(out)
    path = out / "subjects.csv"
    if not path.is_file():
        raise MeshError(f"{out} holds no prepared cohort: subjects.csv is missing. Run the prepare step first")
    table = pd.read_csv(path, dtype={"subject": str})
    ids = tuple(table["subject"])
    marks = [out / f"{i}.landmarks.csv" for i in ids]
    return Cohort(
        table,
        ids,
        tuple(read_shape(out / f"{i}.vtk") for i in ids),
        tuple(read_landmarks(p).points if p.is_file() else None for p in marks),
    )


def _landmarks(subject: Subject, staged: Staged) -> Landmarks | None:
    if subject.landmarks_path is None:
        return None
    marks = read_landmarks(subject.landmarks_path)
    d = staged.shape.dimension
    if marks.points.shape[1] < d:
        raise MeshError(
            f"landmarks {subject.landmarks_path} have {marks.points.shape[1]} coordinates; expected {d}, as {subject.id} has"
        )
    return Landmarks(marks.names, staged.transform.apply(marks.points[:, :d]))


def _write(
    out: Path, subject: Subject, staged: Staged, marks: Landmarks | None, alignment: Alignment, i: int
) -> tuple[dict, dict]:
    """Files of one subject; returns its rows of subjects.csv and quality.csv."""
    pose = alignment.transforms[i]
    shape = staged.shape.replace(points=pose.apply(staged.shape.points))
    write_shape(out / f"{subject.id}.vtk", shape)
    if staged.full is not None and staged.where is not None:
        arrays = {**staged.full.point_data, "simplex": staged.where[0].astype(np.int32), "weights": staged.where[1]}
        write_shape(
            out / f"{subject.id}.full.vtk", Shape(pose.apply(staged.full.points), staged.full.simplices, arrays)
        )
    if marks is not None:
        write_landmarks(out / f"{subject.id}.landmarks.csv", Landmarks(marks.names, pose.apply(marks.points)))
    total = pose.after(staged.transform)
    how = {
        "align": alignment.method,
        "reference": alignment.reference,
        "scale": total.scale,
        "mirrored": total.reflects,
        "source": subject.path.name,
    }
    save_transform(out / f"{subject.id}.transform.json", total, how)
    row: dict[str, Any] = {
        "subject": subject.id,
        **subject.labels,
        "n_points": shape.n_points,
        "n_simplices": len(shape.simplices),
    }
    row |= {"kind": shape.kind, "dimension": shape.dimension, "scale": total.scale, "mirrored": total.reflects}
    quality = {
        "subject": subject.id,
        "file": subject.path.name,
        **staged.record,
        "align": alignment.method,
        "reference": alignment.reference,
    }
    quality |= {"align_residual": alignment.residuals[i], "align_mirrored_residual": alignment.mirrored[i]}
    return row, quality


def _write_table(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    if path.name == "quality.csv":
        with replacing(path.with_suffix(".parquet")) as temporary:
            table.to_parquet(temporary, index=False)
