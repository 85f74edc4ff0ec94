"""Landmarks: named points in the frame of a mesh.

Written as CSV (`name,x,y,z`). Read from CSV, TXT (with or without names and a header; comma, semicolon, blank or tab), MITK's .mps and 3-D
Slicer's .fcsv. MITK and shapeflow keep the file's axes; Slicer's LPS/RAS flag is honoured: coordinates are returned in the axes that the header
names, and a file that says nothing is taken as it stands.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.io.files import read_bytes, replacing, suffix_of


@dataclass(frozen=True, eq=False)
class Landmarks:
    """`names`, one a point; `points (n, d)` in mesh units."""

    names: tuple[str, ...]
    points: np.ndarray

    def __post_init__(self) -> None:
        points = np.asarray(self.points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] not in (2, 3) or len(points) != len(self.names) or not len(points):
            raise MeshError(
                f"landmarks need (n, 2) or (n, 3) points and n names; received {points.shape} and {len(self.names)} names"
            )
        if len(set(self.names)) != len(self.names):
            raise MeshError(f"landmark names repeat: {sorted({n for n in self.names if self.names.count(n) > 1})[:5]}")
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "points", points)


def read_landmarks(path: str | Path) -> Landmarks:
    """Landmarks of one file; missing ones (NaN) are kept as NaN."""
    path = Path(path)
    suffix = suffix_of(path)
    reader = {".mps": _read_mps, ".fcsv": _read_fcsv}.get(suffix, _read_text)
    try:
        names, points = reader(read_bytes(path))
        return Landmarks(tuple(names), points)
    except MeshError as error:
        raise MeshError(f"landmarks {path}: {error}") from error


def write_landmarks(path: str | Path, landmarks: Landmarks) -> None:
    """CSV with a header `name,x,y[,z]`; every number is written so that it reads back exactly."""
    axes = "xyz"[: landmarks.points.shape[1]]
    lines = [",".join(["name", *axes])]
    for name, point in zip(landmarks.names, landmarks.points, strict=True):
        quoted = f'"{name}"' if re.search(r"[,\s;]", name) else name
        lines.append(",".join([quoted, *(repr(float(x)) for x in point)]))
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _decode(data: bytes) -> str:
    return data.decode("utf-8-sig", errors="replace")


def _read_text(data: bytes) -> tuple[list[str], np.ndarray]:
    names: list[str] = []
    rows: list[list[float]] = []
    header: list[str] | None = None
    for number, line in enumerate(_decode(data).splitlines(), start=1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        fields = [f.strip('"') for f in re.findall(r'"[^"]*"|[^,;\s]+', line)]
        values = [_number(f) for f in fields]
        # a name may itself be a number: a header says so, or four numbers ("1,9.2,20.9,34.8")
        named = values[0] is None or len(values) == 4 or (header is not None and header[0].lower() != "x")
        coordinates = values[1:] if named else values
        if header is None and not rows and all(v is None for v in values):
            header = fields
            continue
        if (
            len(coordinates) not in (2, 3)
            or any(v is None for v in coordinates)
            or (rows and len(coordinates) != len(rows[0]))
        ):
            raise MeshError(
                f"line {number} is {line[:60]!r}; expected [name] x y [z], numbers as in the lines before; a missing landmark is nan nan nan"
            )
        names.append(fields[0] if named else str(len(rows) + 1))
        rows.append([float(v) for v in coordinates if v is not None])
    if not rows:
        raise MeshError("holds no landmarks; expected one a line: [name] x y [z]")
    return names, np.array(rows)


def _read_fcsv(data: bytes) -> tuple[list[str], np.ndarray]:
    columns = ["id", "x", "y", "z", "ow", "ox", "oy", "oz", "vis", "sel", "lock", "label"]
    names, rows = [], []
    for line in _decode(data).splitlines():
        if line.startswith("#"):
            if "columns" in line:
                columns = [c.strip() for c in line.split("=", 1)[-1].split(",")]
            continue
        if not line.strip():
            continue
        fields = dict(zip(columns, line.split(","), strict=False))
        point = [_number(fields.get(a, "")) for a in ("x", "y", "z")]
        if any(v is None for v in point):
            raise MeshError(f"has the line {line[:60]!r}; expected the columns {','.join(columns)}")
        label = fields.get("label", "").strip() or fields.get("id", "").strip()
        names.append(label if label and label not in names else f"{label or 'landmark'}_{len(names) + 1}")
        rows.append([float(v) for v in point if v is not None])
    if not rows:
        raise MeshError("holds no landmarks")
    return names, np.array(rows)


def _read_mps(data: bytes) -> tuple[list[str], np.ndarray]:
    if b"<!ENTITY" in data:
        raise MeshError("declares XML entities, which no MITK point set needs; it is refused")
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise MeshError(f"is no MITK point set: {error}") from error
    names, rows = [], []
    for point in root.iter("point"):
        values = [_number((point.findtext(a) or "").strip()) for a in ("x", "y", "z")]
        if any(v is None for v in values):
            raise MeshError("has a <point> without numbers in <x>, <y> and <z>")
        names.append((point.findtext("id") or str(len(names))).strip())
        rows.append([float(v) for v in values if v is not None])
    if not rows:
        raise MeshError("holds no <point> elements")
    return names, np.array(rows)


def _number(text: str) -> float | None:
    try:
        return float("nan" if text == "NA" else text)  # NA is R's missing number
    except ValueError:
        return None
