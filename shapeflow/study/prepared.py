"""What a folder of prepared meshes holds: shapes, landmarks, labels, and the facts of its cohort."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shapeflow.errors import ShapeflowError


def facts_of(prepared: Path) -> dict[str, Any]:
    return json.loads((prepared / "cohort.json").read_text(encoding="utf-8"))


def cohort_size(prepared: str | Path) -> float:
    """Median diagonal of the cohort's bounding boxes, mesh units, two digits: the unit of relative widths."""
    return float(facts_of(Path(prepared))["size"])


def labels_of(path: Path) -> Any:
    """Columns of subjects.csv that describe subjects, not files: index is the subject."""
    from shapeflow.prepare.labels import RESERVED
    from shapeflow.prepare.sheet import read_plain

    table = read_plain(path).set_index("subject")
    return table[[c for c in table.columns if c not in RESERVED]]


def landmarks_of(folder: Path, name: str) -> Any:
    """A prepared subject's landmarks, None if it has none."""
    from shapeflow.io import read_landmarks

    path = folder / f"{name}.landmarks.csv"
    return read_landmarks(path) if path.is_file() else None


class Subjects:
    """Prepared shapes and landmarks, each read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shapes: dict[str, Any] = {}
        self.marks: dict[str, Any] = {}

    def shape(self, name: str) -> Any:
        from shapeflow.io import read_shape

        if name not in self.shapes:
            path = self.folder / f"{name}.vtk"
            if not path.is_file():
                raise ShapeflowError(f"{name} was left out by the preparation: see {self.folder / 'quality.csv'}")
            self.shapes[name] = read_shape(path)
        return self.shapes[name]

    def landmarks(self, name: str) -> Any:
        if name not in self.marks:
            self.marks[name] = landmarks_of(self.folder, name)
        return self.marks[name]

    def common_landmarks(self, source: str, target: str) -> tuple[Any, Any]:
        """Points (L, d) of the landmarks that both subjects have, by name, in the source's order; (None, None) when there is none."""
        import numpy as np

        pair = self.landmarks(source), self.landmarks(target)
        if None in pair:
            return None, None
        tables = [dict(zip(m.names, m.points, strict=True)) for m in pair]
        both = [(a, tables[1][n]) for n, a in tables[0].items() if n in tables[1]]
        known = [points for points in both if np.isfinite(points).all()]
        return (np.stack([a for a, _ in known]), np.stack([b for _, b in known])) if known else (None, None)


def usable(folder: Path) -> tuple[list[str], Subjects, dict[str, str]]:
    """Subjects whose prepared shape can be read, and why the others cannot."""
    subjects, good, failures = Subjects(folder), [], {}
    for name in sorted(p.stem for p in (folder / "fingerprints").glob("*.txt")):
        try:
            subjects.shape(name)
            good.append(name)
        except ShapeflowError as error:
            failures[name] = str(error)
    return good, subjects, failures
