"""Repairs, in the order of `Prepare`'s fields. Each says in one number what it changed; zero means that the mesh was clean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.io.raw import Raw
from shapeflow.prepare.options import Prepare
from shapeflow.prepare.resample import straightened
from shapeflow.prepare.topology import (
    boundary_triangles,
    closed_curves,
    components_of,
    degenerate,
    edges_of,
    orientation,
    same_place,
    signed_areas,
    surplus,
    volumes,
)
from shapeflow.shape import Shape, simplex_measures


def clean(raw: Raw, options: Prepare) -> tuple[Shape, dict[str, Any]]:
    """The repaired shape and a record: step -> how much it changed (vertices, simplices, edges)."""
    record: dict[str, Any] = {}
    for name, step in _STEPS.items():
        raw, record[name] = step(raw, options)
        if name == "drop_nan" and not np.isfinite(raw.points).all():
            raise MeshError("has vertices that are not finite numbers; write prepare.drop_nan=true")
        if not len(raw.simplices):
            raise MeshError(
                f"nothing is left after {name.replace('_', ' ')}: every simplex was degenerate or not finite"
            )
    return raw.shape(), record


def _drop_nan(raw: Raw, options: Prepare) -> tuple[Raw, int]:
    bad = ~np.asarray(np.isfinite(raw.points).all(axis=1))
    if not options.drop_nan or not bad.any():
        return raw, 0
    kept = raw._replace(simplices=raw.simplices[~bad[raw.simplices].any(1)])
    return _compact(kept, drop=bad), int(bad.sum())


def _merge(raw: Raw, options: Prepare) -> tuple[Raw, int]:
    """One vertex for those at one place. A point set keeps its multiplicities; a curve may touch itself, so only neighbours and ends merge."""
    if not options.merge or raw.simplices.shape[1] == 1:
        return raw, 0
    points, n = raw.points, len(raw.points)
    if raw.simplices.shape[1] == 2:
        target = merge_curve(points, raw.simplices, options.merge_tolerance * _extent(points))
    elif options.merge_tolerance > 0:
        target = _merge_near(points, options.merge_tolerance * _extent(points))
    else:
        target = same_place(points)
    gone = target != np.arange(n)
    if not gone.any():
        return raw, 0
    return _compact(raw._replace(simplices=target[raw.simplices]), drop=gone), int(gone.sum())


def _extent(points: np.ndarray) -> float:
    finite = points[np.isfinite(points).all(1)]
    return float(np.linalg.norm(np.ptp(finite, axis=0))) if len(finite) else 0.0


def merge_curve(points: np.ndarray, edges: np.ndarray, distance: float) -> np.ndarray:
    """Neighbours at one place are one vertex, and so are two loose ends: a curve stored as separate segments becomes whole."""
    a, b = edges.T
    joined = [edges[np.linalg.norm(points[a] - points[b], axis=1) <= distance]]
    ends = np.flatnonzero(np.bincount(edges.ravel(), minlength=len(points)) == 1)
    if len(ends):
        firsts, inverse, count = np.unique(
            points[ends] + 0.0, axis=0, return_inverse=True, return_counts=True, equal_nan=False
        )[0:3]
        pairs = np.argsort(inverse.ravel(), kind="stable")[
            np.isin(np.sort(inverse.ravel()), np.flatnonzero(count == 2))
        ]
        joined.append(ends[pairs].reshape(-1, 2))
    return _first_of_cluster(np.concatenate(joined), len(points))


def _merge_near(points: np.ndarray, distance: float) -> np.ndarray:
    """(n,) for every vertex, the first vertex of its cluster: chains of vertices nearer than `distance`."""
    from scipy.spatial import cKDTree

    finite = np.flatnonzero(np.isfinite(points).all(1))
    return _first_of_cluster(finite[cKDTree(points[finite]).query_pairs(distance, output_type="ndarray")], len(points))


def _first_of_cluster(pairs: np.ndarray, n: int) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    label = connected_components(graph, directed=False)[1]
    return np.unique(label, return_index=True)[1][label]


def _drop_degenerate(raw: Raw, options: Prepare) -> tuple[Raw, int]:
    if not options.drop_degenerate:
        return raw, 0
    bad = degenerate(raw.points, raw.simplices, _extent(raw.points))
    return raw._replace(simplices=raw.simplices[~bad]), int(bad.sum())


def _drop_duplicates(raw: Raw, options: Prepare) -> tuple[Raw, int]:
    if not options.drop_duplicates or raw.simplices.shape[1] == 1:
        return raw, 0
    twice = surplus(raw.simplices)
    return raw._replace(simplices=raw.simplices[~twice]), int(twice.sum())


def _components(raw: Raw, options: Prepare) -> tuple[Raw, int]:
    if options.components == "all" or options.components == 0 or raw.simplices.shape[1] == 1:
        return raw, 0
    count, labels = components_of(raw.simplices, len(raw.points))
    extent = np.bincount(labels, weights=simplex_measures(raw.points, raw.simplices), minlength=count)
    if options.components == "largest":
        keep = np.arange(count) == int(np.argmax(extent))
    else:
        keep = extent >= float(options.components) * extent.max()
    return raw._replace(simplices=raw.simplices[keep[labels]]), int((~keep).sum())


def _drop_unreferenced(raw: Raw, options: Prepare) -> tuple[Raw, int]:
    used = np.zeros(len(raw.points), bool)
    used[raw.simplices.ravel()] = True
    if not options.drop_unreferenced or used.all():
        return raw, 0
    return _compact(raw, drop=~used), int((~used).sum())


def _orient(raw: Raw, options: Prepare) -> tuple[Raw, int]:
    """Neighbours agree; what is closed faces outwards (curves in the plane: run anticlockwise). Open patches keep the sense of their majority."""
    if not options.orient or raw.simplices.shape[1] == 1:
        return raw, 0
    label = components_of(raw.simplices, len(raw.points))[1]
    if raw.simplices.shape[1] == 2:
        edges = straightened(raw.simplices, len(raw.points))
        if raw.points.shape[1] == 2:
            wrong = (signed_areas(raw.points, edges, label) < 0) & closed_curves(edges, label)
            edges = np.where(wrong[label][:, None], edges[:, ::-1], edges)
        return raw._replace(simplices=edges), int((edges != raw.simplices).any(1).sum())
    edges = edges_of(raw.simplices)
    flip = orientation(raw.simplices, edges).flip
    triangles = np.where(flip[:, None], raw.simplices[:, [0, 2, 1]], raw.simplices)
    if raw.points.shape[1] == 3:
        open_ = np.bincount(label, weights=boundary_triangles(edges)) > 0
        inward = (volumes(raw.points, triangles, label) < 0) & ~open_
        triangles = np.where(inward[label][:, None], triangles[:, [0, 2, 1]], triangles)
        flip = flip ^ inward[label]
    return raw._replace(simplices=triangles), int(flip.sum())


def _fill_holes(raw: Raw, options: Prepare) -> tuple[Raw, int]:
    if not options.fill_holes or raw.simplices.shape[1] != 3:
        return raw, 0
    from shapeflow.prepare.holes import fill_holes

    return fill_holes(raw, options.fill_holes)


def _smooth(raw: Raw, options: Prepare) -> tuple[Raw, int]:
    if not options.smooth or raw.simplices.shape[1] == 1:
        return raw, 0
    from shapeflow.prepare.holes import taubin

    return raw._replace(points=taubin(raw.points, raw.simplices, options.smooth)), options.smooth


_STEPS: dict[str, Callable[[Raw, Prepare], tuple[Raw, int]]] = {
    "drop_nan": _drop_nan,
    "merge": _merge,
    "drop_degenerate": _drop_degenerate,
    "drop_duplicates": _drop_duplicates,
    "components": _components,
    "drop_unreferenced": _drop_unreferenced,
    "fill_holes": _fill_holes,
    "orient": _orient,
    "smooth": _smooth,
}


def _compact(raw: Raw, drop: np.ndarray) -> Raw:
    """Without the vertices in `drop`, which no simplex may use; the order of the others is kept."""
    keep = ~drop
    simplices = (np.cumsum(keep) - 1)[raw.simplices]
    if raw.simplices.shape[1] == 1:
        simplices = np.arange(int(keep.sum()))[:, None]
    return raw._replace(
        points=raw.points[keep], simplices=simplices, point_data={k: v[keep] for k, v in raw.point_data.items()}
    )
