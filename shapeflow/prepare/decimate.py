"""Fewer vertices on the same surface.

Quadric edge collapses (Garland and Heckbert 1997) by fast-simplification. The library aims at a number of triangles; collapses are replayed
one by one, so that the number of *vertices* is met exactly whenever the topology allows. Coordinates are scaled to unit size first: the
library's thresholds are absolute, and a mesh in metres must be decimated as the same mesh in millimetres is.

The library refuses collapses that would fold slivers, and stops early where a mesh is full of them (the poles of a latitude-longitude sphere): VTK's
slower quadric decimation then does it instead.
"""

from __future__ import annotations

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.shape import Shape


def decimate(shape: Shape, n_points: int) -> tuple[Shape, str]:
    """(the surface with `n_points` vertices or as near above as collapses reach, who made it); unchanged if it has no more. Drops point_data."""
    import fast_simplification

    if shape.simplices.shape[1] != 3:
        raise MeshError(f"decimation needs triangles; received {shape.kind}")
    if shape.n_points <= n_points:
        return shape, "nothing"
    xyz = _spatial(shape.points)
    centre, size = xyz.mean(0), shape.size() or 1.0
    unit = np.ascontiguousarray((xyz - centre) / size)
    triangles = np.ascontiguousarray(shape.simplices, dtype=np.int32)
    if shape.n_points > _FAR * n_points:
        # from afar first without a history: replaying millions of collapses costs more than making them
        unit, triangles = fast_simplification.simplify(unit, triangles, target_count=_FAR * n_points, agg=AGGRESSION)
        unit, triangles = compact(unit, triangles)
        triangles = np.ascontiguousarray(triangles, dtype=np.int32)
    # few triangles asked for: the history of collapses goes further than needed, and is replayed up to the count wanted
    goal = max(4, n_points // 2)
    _, _, collapses = fast_simplification.simplify(
        unit, triangles, target_count=goal, agg=AGGRESSION, return_collapses=True
    )
    points, faces = _replay_to(unit, triangles, collapses, n_points)
    made_by = "fast-simplification"
    if len(points) > n_points:
        # stalled, and on its way there it has pulled needles off the surface: start again, unless that would take minutes
        again = shape.n_points <= _PATIENCE
        start = (np.ascontiguousarray((xyz - centre) / size), shape.simplices) if again else (unit, triangles)
        points, faces = _by_vtk(*_by_vtk(*start, 3 * n_points, tries=1, at_least=n_points), n_points)
        made_by = "VTK" if again else "fast-simplification, then VTK"
    return Shape((points * size + centre)[:, : shape.dimension], faces), made_by


_PATIENCE = 400_000  # vertices that VTK decimates in half a minute or so
_FAR = 20  # times the vertices wanted
AGGRESSION = 5.0  # of the library: lower keeps the shape better and takes longer


def _replay_to(
    unit: np.ndarray, triangles: np.ndarray, collapses: np.ndarray, n_points: int
) -> tuple[np.ndarray, np.ndarray]:
    """The prefix of collapses that leaves the fewest vertices at or above the target: bisection, since each collapse only removes."""
    import fast_simplification

    def after(count: int) -> tuple[np.ndarray, np.ndarray]:
        if count == 0:
            return unit, triangles.astype(np.int64)
        points, faces, _ = fast_simplification.replay_simplification(
            unit, triangles, np.ascontiguousarray(collapses[:count])
        )
        return compact(points, faces.astype(np.int64))

    high = min(len(collapses), len(unit) - n_points)
    best = after(high)
    if len(best[0]) >= n_points:
        return best
    # each collapse taken back returns at least one vertex: so many fewer are certainly enough
    low = max(0, high - (n_points - len(best[0])))
    best = after(low)
    if len(best[0]) == n_points:
        return best
    while high - low > 1:
        middle = (low + high) // 2
        candidate = after(middle)
        if len(candidate[0]) >= n_points:
            low, best = middle, candidate
            if len(candidate[0]) == n_points:
                break
        else:
            high = middle
    return best


def _by_vtk(
    points: np.ndarray, faces: np.ndarray, n_points: int, tries: int = 12, at_least: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """vtkQuadricDecimation, which aims at a number of triangles; asked again until the vertices fit, from above."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkFiltersCore import vtkQuadricDecimation

    from shapeflow.io.vtkfiles import polydata

    best = (points, faces)
    if len(points) <= n_points:
        return best
    goal = len(faces) - 2 * (len(points) - n_points)
    for _ in range(tries):
        decimation = vtkQuadricDecimation()
        decimation.SetInputData(polydata(Shape(points, faces)))
        decimation.SetTargetReduction(min(1.0, max(0.0, 1 - max(goal, 4) / len(faces))))
        decimation.Update()
        made = decimation.GetOutput()
        if not made.GetNumberOfPolys():
            break
        triangles = vtk_to_numpy(made.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int64)
        found = compact(vtk_to_numpy(made.GetPoints().GetData()).astype(np.float64), triangles)
        if (at_least or n_points) <= len(found[0]) < len(best[0]):
            best = found
        if len(found[0]) == n_points:
            break
        goal += 2 * (n_points - len(found[0])) or 1
    return best


def compact(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without the vertices that no simplex uses, in the same order."""
    used = np.zeros(len(points), bool)
    used[faces.ravel()] = True
    return points[used], (np.cumsum(used) - 1)[faces]


def _spatial(points: np.ndarray) -> np.ndarray:
    return np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
