"""Repairs, in the order of `Prepare`'s fields. Each says in one number what it changed; zero means that the mesh was clean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.io.raw import Raw
from shapeflow.prepare.options import Prepare
from shapeflow.prepare.topology import (
    components_of,
    degenerate,
    edges_of,
    orientation,
    signed_area,
    signed_volume,
    surplus,
)
from shapeflow.shape import Shape, simplex_measures


def clean(raw: Raw, options: Prepare) -> tuple[Shape, dict[str, Any]]:
    """The repaired shape and a record: step -> how much it changed (vertices, simplices, edges)."""
    record: dict[str, Any] = {}
    for name, step in _STEPS.items():
        raw, record[name] = step(raw, options)
        if not len(raw.simplices):
            raise MeshError(
                f"nothing is left after {name.replace('_', ' ')}: every simplex was degenerate or not finite"
            )
    return raw.shape(), record


def _drop_nan(raw: Raw, options: Prepare) -> tuple[Raw, int]:
    bad = ~np.isfinite(raw.points).all(1)
    if not options.drop_nan or not bad.any():
        return raw, 0
    kept = raw._replace(simplices=raw.simplices[~bad[raw.simplices].any(1)])
    return _compact(kept, drop=bad), int(bad.sum())


def _merge(raw: Raw, options: Prepare) -> tuple[Raw, int]:
    """One vertex for those at one place. A curve's repeated points collapse to one; a point set keeps its multiplicities."""
    if not options.merge or raw.simplices.shape[1] == 1:
        return raw, 0
    points = raw.points
    if options.merge_tolerance > 0:
        cell = options.merge_tolerance * float(np.linalg.norm(np.ptp(points, axis=0)))
        target = _merge_near(points, cell)
    else:
        firsts, inverse = np.unique(points + 0.0, axis=0, return_index=True, return_inverse=True)[1:]
        target = firsts[inverse.ravel()]
    moved = int((target != np.arange(len(points))).sum())
    if not moved:
        return raw, 0
    gone = target != np.arange(len(points))
    return _compact(raw._replace(simplices=target[raw.simplices]), drop=gone), moved


def _merge_near(points: np.ndarray, distance: float) -> np.ndarray:
    """(n,) for every vertex, the first vertex of its cluster: chains of vertices nearer than `distance`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    pairs = cKDTree(points).query_pairs(distance, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(points),) * 2)
    labels = connected_components(graph, directed=False)[1]
    return np.unique(labels, return_index=True)[1][labels]


def _drop_degenerate(raw: Raw, options: Prepare) -> tuple[Raw, int]:
    if not options.drop_degenerate:
        return raw, 0
    bad = degenerate(raw.points, raw.simplices, float(np.linalg.norm(np.ptp(raw.points, axis=0))))
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
    if raw.simplices.shape[1] == 2:
        return _orient_curves(raw)
    triangles = raw.simplices.copy()
    edges = edges_of(triangles)
    flip, patch, _ = orientation(triangles, edges)
    boundary = np.zeros(len(triangles), bool)
    boundary[np.flatnonzero(edges.counts[edges.of_half] == 1) // 3] = True
    component = components_of(triangles, len(raw.points))[1]
    for p in range(int(patch.max()) + 1) if flip.any() else ():
        mine = patch == p
        if flip[mine].mean() > 0.5:  # the majority keeps its sense
            flip[mine] = ~flip[mine]
    triangles[flip] = triangles[flip][:, [0, 2, 1]]
    if raw.points.shape[1] == 3:
        for c in range(int(component.max()) + 1):
            mine = component == c
            if not boundary[mine].any() and signed_volume(raw.points, triangles[mine]) < 0:
                triangles[mine] = triangles[mine][:, [0, 2, 1]]
                flip[mine] = ~flip[mine]
    return raw._replace(simplices=triangles), int(flip.sum())


def _orient_curves(raw: Raw) -> tuple[Raw, int]:
    edges = raw.simplices.copy()
    turned = 0
    component = components_of(edges, len(raw.points))[1]
    for c in range(int(component.max()) + 1):
        mine = np.flatnonzero(component == c)
        closed = np.array_equal(np.sort(edges[mine, 0]), np.sort(edges[mine, 1]))
        if closed and raw.points.shape[1] == 2 and signed_area(raw.points, edges[mine]) < 0:
            edges[mine] = edges[mine][:, ::-1]
            turned += len(mine)
    return raw._replace(simplices=edges), turned


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
