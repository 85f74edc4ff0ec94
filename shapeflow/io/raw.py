"""What a file holds before anybody has judged it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.shape import Shape


class Raw(NamedTuple):
    """Like a `Shape`, but points may be NaN or infinite and unreferenced. Indices exist; that much every reader guarantees."""

    points: np.ndarray  # (n, d) float64
    simplices: np.ndarray  # (m, k) int64
    point_data: Mapping[str, np.ndarray] = {}
    notes: tuple[str, ...] = ()  # what the reader had to decide, in sentences

    def shape(self) -> Shape:
        return Shape(self.points, self.simplices, self.point_data)


def make_raw(
    points: np.ndarray,
    simplices: np.ndarray | None,
    point_data: Mapping[str, np.ndarray] | None = None,
    notes: tuple[str, ...] = (),
) -> Raw:
    """A `Raw` whose indices exist and that is not empty; `simplices` None or empty means a point set."""
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or not len(points):
        raise MeshError("holds no points")
    if points.shape[1] not in (2, 3):
        raise MeshError(f"has points of {points.shape[1]} coordinates; expected 2 or 3")
    if simplices is None or not len(simplices):
        simplices = np.arange(len(points), dtype=np.int64)[:, None]
    simplices = np.ascontiguousarray(simplices, dtype=np.int64)
    low, high = int(simplices.min()), int(simplices.max())
    if low < 0 or high >= len(points):
        raise MeshError(
            f"refers to point {high if high >= len(points) else low} but holds {len(points)} points (0 to {len(points) - 1})"
        )
    data = {k: v for k, v in (point_data or {}).items() if len(v) == len(points)}
    return Raw(np.ascontiguousarray(points), simplices, data, tuple(notes))


def planar(raw: Raw) -> Raw:
    """Points and curves whose third coordinate is zero everywhere live in the plane: formats such as VTK always store three."""
    if raw.simplices.shape[1] < 3 and raw.points.shape[1] == 3 and not np.any(raw.points[:, 2]):
        return raw._replace(points=np.ascontiguousarray(raw.points[:, :2]))
    return raw


def triangulate(polygons: list[np.ndarray], points: np.ndarray) -> np.ndarray:
    """(m, 3) triangles of polygons grouped by size, (m_s, s) each; corners keep their sense and no point is added.

    A polygon is a fan from its first corner. One of five corners or more whose fan folds over itself is not convex: VTK clips its ears.
    """
    parts = []
    for p in polygons:
        if not p.size:
            continue
        corners = range(1, p.shape[1] - 1)
        fan = np.stack([np.stack([p[:, 0], p[:, i], p[:, i + 1]], 1) for i in corners], 1)  # (m, s - 2, 3)
        # a quad is always cut at its first corner: meshes in correspondence must get the same triangles
        if p.shape[1] > 4:
            for i in np.flatnonzero(_folded(fan, points)):
                fan[i] = _ears(p[i], points, fan[i])
        parts.append(fan.reshape(-1, 3))
    return np.concatenate(parts) if parts else np.empty((0, 3), np.int64)


def _folded(fan: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(m,) true where two triangles of a fan face away from each other."""
    if fan.size and (fan.min() < 0 or fan.max() >= len(points)):
        return np.zeros(len(fan), bool)  # refused later, by `make_raw`
    xyz = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
    a, b, c = (xyz[fan[..., i]] for i in range(3))
    normal = np.cross(b - a, c - a)  # (m, s - 2, 3)
    return ((normal * normal.sum(1, keepdims=True)).sum(2) < 0).any(1)


def _ears(polygon: np.ndarray, points: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    from vtkmodules.vtkCommonCore import vtkIdList
    from vtkmodules.vtkCommonDataModel import vtkPolygon

    cell = vtkPolygon()
    for corner in polygon:
        cell.GetPointIds().InsertNextId(cell.GetPoints().GetNumberOfPoints())
        cell.GetPoints().InsertNextPoint(*np.pad(points[corner], (0, 3 - points.shape[1])))
    found = vtkIdList()
    cell.EarCutTriangulation(found)
    if found.GetNumberOfIds() != 3 * len(fallback):
        return fallback  # crosses itself: every triangulation is as good as the fan
    return polygon[[found.GetId(i) for i in range(found.GetNumberOfIds())]].reshape(-1, 3)


def floats(text: bytes, refusal: str) -> np.ndarray:
    """The numbers of an ASCII text, apart by blanks; MeshError with this sentence where something else stands among them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return np.fromstring(text.decode("ascii"), dtype=np.float64, sep=" ")
        except (UnicodeDecodeError, DeprecationWarning, ValueError) as error:
            raise MeshError(refusal) from error
