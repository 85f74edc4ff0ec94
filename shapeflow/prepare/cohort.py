"""The cohort: every subject in one frame, on disk.

    subjects.csv                 subject, its labels, n_points, n_simplices, kind, dimension, scale, mirrored
    quality.csv, .parquet        one row a subject: what was found, what was changed, what is left to decide
    findings.csv                 one row a finding: subject, severity, check, sentence, remedy
    <subject>.vtk                the prepared shape
    <subject>.full.vtk           the cleaned full mesh in the same frame; `simplex` and `weights` place its vertices on the prepared shape
    <subject>.landmarks.csv      landmarks in the same frame
    <subject>.transform.json     4x4 matrix from the file's coordinates to these, and its inverse

The same input gives the same bytes. Subjects are read, repaired and resampled in processes of their own (see shapeflow.io.isolated).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shapeflow.errors import MeshError, few
from shapeflow.io.isolated import Limits
from shapeflow.io.landmarks import Landmarks, read_landmarks, write_landmarks
from shapeflow.io.readers import read_shape
from shapeflow.io.writers import write_shape
from shapeflow.prepare import outliers
from shapeflow.prepare.alignment import Alignment, align_cohort, correspond
from shapeflow.prepare.dataset import Dataset, Subject
from shapeflow.prepare.findings import Finding
from shapeflow.prepare.options import Prepare
from shapeflow.prepare.sheet import read_plain
from shapeflow.prepare.subject import Staged, load_staged
from shapeflow.prepare.summary import refusal
from shapeflow.prepare.transform import save_transform
from shapeflow.prepare.validation import Pass, bar, one_pass, quality_table, write_csv, write_quality
from shapeflow.prepare.wording import counted, listed
from shapeflow.shape import Shape

log = logging.getLogger("shapeflow.prepare")


@dataclass(frozen=True, eq=False)
class Cohort:
    """Row i of the table, `subjects[i]`, `shapes[i]` and `landmarks[i]` belong together."""

    table: pd.DataFrame
    subjects: tuple[str, ...]
    shapes: tuple[Shape, ...]
    landmarks: tuple[np.ndarray | None, ...]


class Unusable(MeshError):
    """Subjects that cannot be used stop a preparation. Its quality tables are written."""


def prepare_cohort(
    dataset: Dataset, options: Prepare, out: str | Path, *, limits: Limits | None = None, progress: bool | None = None
) -> None:
    """Read, judge, repair, resample and align every subject, and write them with their tables to `out`.

    `limits` (processes, time, memory) and `progress` change no result. Subjects that cannot be used stop everything, after the quality
    tables are written, or are left out: `options.on_bad`.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".stage-") as folder:
        judged = _judge(dataset, options, Path(folder), limits or Limits(), progress, out)
        rows = []
        for i, subject in enumerate(judged.good):
            whole = load_staged(Path(folder), subject.id, full=True)
            rows.append(_write(out, subject, whole, judged.marks[subject.id], judged.alignment, i))
    for finding in judged.findings:
        if finding.severity == "error":
            log.warning("goes on without %s: %s", finding.subject, finding.sentence)
    judged.write(out)
    write_csv(out / "subjects.csv", pd.DataFrame(rows))
    counts = {s: sum(f.severity == s for f in judged.findings) for s in ("error", "warning")}
    log.info(
        "%s: %d subjects prepared, %d warnings, %d errors; see %s",
        dataset.name,
        len(rows),
        counts["warning"],
        counts["error"],
        out / "findings.csv",
    )


def rehearse(
    dataset: Dataset, options: Prepare, out: str | Path, *, limits: Limits | None = None, progress: bool | None = None
) -> tuple[Finding, ...]:
    """Everything that `prepare_cohort` would find, and none of its shapes: the quality tables and findings.csv in `out`.

    Subjects that cannot be used stop nothing here, so that one look shows all there is to mend.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".stage-") as folder:
        lenient = replace(options, on_bad="skip", keep_full=False)
        judged = _judge(dataset, lenient, Path(folder), limits or Limits(), progress, out)
    judged.write(out)
    return tuple(judged.findings)


@dataclass(frozen=True, eq=False)
class _Judged:
    """A cohort read, repaired, resampled and aligned, in memory or in the staging folder."""

    done: Pass
    good: tuple[Subject, ...]  # those that can be used, in order
    marks: Mapping[str, Landmarks | None]
    alignment: Alignment  # of the good ones
    findings: tuple[Finding, ...]

    def write(self, out: Path) -> None:
        extra = {s.id: _alignment_row(self.alignment, i) for i, s in enumerate(self.good)}
        write_quality(out, quality_table(self.done, extra, self.findings), self.findings)


def _judge(
    dataset: Dataset, options: Prepare, folder: Path, limits: Limits, progress: bool | None, out: Path
) -> _Judged:
    """The whole of preparation short of writing. Stops, after writing the tables to `out`, when `options.on_bad` says so or nothing is left."""
    done = one_pass(dataset, options, folder, limits, progress)
    staged, marks, broken = _load(done, folder)
    findings = [*done.findings, *broken]
    good = _usable(done, findings, options, out)
    ids, shapes = [s.id for s in good], [staged[s.id].shape for s in good]
    with bar(f"{dataset.name}: align", len(good), progress) as tick:
        alignment = align_cohort(ids, shapes, [marks[i] for i in ids], options, limits, tick)
        compared = alignment
        if alignment.method == "none" and len(ids) > 2:
            # they stay as they lie; whether one is a mirror image, or another kind of thing, is asked all the same
            how = replace(options, align="gpa" if correspond(shapes) else "pca_icp", reference=None)
            compared = align_cohort(ids, shapes, [None] * len(ids), how, limits)
    log.info("aligned %d subjects by %s to %s", len(ids), alignment.method, alignment.reference or "nothing")
    findings += [*outliers.of_alignment(ids, compared), *_missed(good, shapes, options)]
    return _Judged(done, tuple(good), marks, alignment, tuple(findings))


def load_cohort(out: str | Path) -> Cohort:
    """What `prepare_cohort` wrote."""
    out = Path(out)
    path = out / "subjects.csv"
    if not path.is_file():
        raise MeshError(f"{out} holds no prepared cohort: subjects.csv is missing. Run the prepare step first")
    table = read_plain(path)
    ids = tuple(table["subject"])
    marks = [out / f"{i}.landmarks.csv" for i in ids]
    return Cohort(
        table,
        ids,
        tuple(read_shape(out / f"{i}.vtk") for i in ids),
        tuple(read_landmarks(p).points if p.is_file() else None for p in marks),
    )


def _load(done: Pass, folder: Path) -> tuple[dict[str, Staged], dict[str, Landmarks | None], list[Finding]]:
    """Staged shapes and landmarks by subject, and findings about landmarks that cannot be used."""
    staged: dict[str, Staged] = {}
    marks: dict[str, Landmarks | None] = {}
    findings = []
    for subject, record in zip(done.subjects, done.records, strict=True):
        if record is None:
            continue
        staged[subject.id] = load_staged(folder, subject.id)
        try:
            marks[subject.id] = _landmarks(subject, staged[subject.id])
        except MeshError as error:
            marks[subject.id] = None
            remedy = f"repair the file, write {listed('dataset.exclude', [subject.id])}, or prepare.on_bad=skip"
            findings.append(
                Finding(subject.id, "error", "landmarks", _in_its_name(str(error), subject.landmarks_path), remedy)
            )
            continue
        findings += _distant(subject, staged[subject.id].shape, marks[subject.id])
    return staged, marks, findings + _incomplete(marks)


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


def _in_its_name(sentence: str, path: Path | None) -> str:
    """A sentence with the file's name in place of its path, so that findings do not depend on where the data lie."""
    return sentence if path is None else sentence.replace(str(path), path.name)


def _incomplete(marks: Mapping[str, Landmarks | None]) -> list[Finding]:
    """Landmarks that other subjects have and one has not: they are compared by name, so what is missing is left out, and rows without names shift."""
    known = {i: m.names for i, m in marks.items() if m is not None}
    found = {
        i: {n for n, p in zip(m.names, m.points, strict=True) if np.isfinite(p).all()}
        for i, m in marks.items()
        if m is not None
    }
    names = dict.fromkeys(n for listed_names in known.values() for n in listed_names)
    most = max(map(len, known.values()), default=0)
    findings = []
    for subject, own in known.items():
        missing = [n for n in names if n not in found[subject]]
        if not missing:
            continue
        sentence = f"lacks {counted(len(missing), 'landmark')} that others have: {few(missing)}"
        remedy = "left out wherever it takes part: digitise it, or name it as the other files do"
        if len(own) < most and own == tuple(str(j + 1) for j in range(len(own))):
            remedy = "rows without names are taken in order, so a row left out shifts all below: write it as nan nan nan, or name the rows"
        findings.append(Finding(subject, "warning", "landmarks_missing", sentence, remedy))
    return findings


def _distant(subject: Subject, shape: Shape, marks: Landmarks | None) -> list[Finding]:
    """Landmarks belong near their mesh: far off, they are in another frame or unit."""
    from scipy.spatial import cKDTree

    known = marks.points[np.isfinite(marks.points).all(1)] if marks is not None else np.empty((0, shape.dimension))
    if not len(known):
        return []
    median = float(np.median(cKDTree(shape.points).query(known)[0])) / (shape.size() or 1.0)
    if median < 0.2:
        return []
    remedy = "check that they are in the mesh's frame and unit (Slicer's LPS and RAS differ in two signs)"
    return [
        Finding(
            subject.id,
            "warning",
            "landmarks_far",
            f"half of its landmarks lie more than {median:.2g} sizes from its surface",
            remedy,
        )
    ]


def _usable(done: Pass, findings: Sequence[Finding], options: Prepare, out: Path) -> list[Subject]:
    wrong = {f.subject: f for f in findings if f.severity == "error"}
    good = [s for s in done.subjects if s.id not in wrong]
    if (wrong and options.on_bad == "stop") or not good:
        write_quality(out, quality_table(done, None, findings), findings)
        raise Unusable(refusal(findings, len(done.subjects), out))
    return good


def _missed(good: Sequence[Subject], shapes: Sequence[Shape], options: Prepare) -> list[Finding]:
    """Subjects that ended with more vertices than wanted; fewer is said before, from the file's own count."""
    if options.n_points is None or options.resample == "none":
        return []
    remedy = "it is used as it is; prepare.resample=remesh may come nearer"
    return [
        Finding(s.id, "info", "n_points", f"ended with {shape.n_points} vertices instead of {options.n_points}", remedy)
        for s, shape in zip(good, shapes, strict=True)
        if shape.n_points > options.n_points
    ]


def _write(
    out: Path, subject: Subject, staged: Staged, marks: Landmarks | None, alignment: Alignment, i: int
) -> dict[str, Any]:
    """Files of one subject; returns its row of subjects.csv."""
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
    how: Mapping[str, Any] = {
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
    return row | {"kind": shape.kind, "dimension": shape.dimension, "scale": total.scale, "mirrored": total.reflects}


def _alignment_row(alignment: Alignment, i: int) -> dict[str, Any]:
    row: dict[str, Any] = {"align": alignment.method, "align_reference": alignment.reference or ""}
    return row | {"align_residual": alignment.residuals[i], "align_mirrored_residual": alignment.mirrored[i]}
