"""What is true of one mesh as it lies on disk: counts that the quality table shows and the findings are drawn from."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from shapeflow.io.raw import Raw
from shapeflow.prepare.clean import merge_curve
from shapeflow.prepare.crossings import self_meetings
from shapeflow.prepare.topology import (
    boundary_triangles,
    closed_curves,
    components_of,
    degenerate,
    edges_of,
    orientation,
    repeated,
    same_place,
    signed_areas,
    volumes,
)
from shapeflow.shape import KINDS, simplex_measures

SIGNATURE = 24  # quantiles of the distances to the centroid: a fingerprint that no rigid motion changes


def facts(raw: Raw) -> dict[str, Any]:
    """One flat row of plain numbers; a count that does not apply to the kind (boundary edges of a curve) is left out."""
    k = raw.simplices.shape[1]
    finite = np.asarray(np.isfinite(raw.points).all(axis=1))
    simplices = raw.simplices[finite[raw.simplices].all(1)]
    points = np.where(finite[:, None], raw.points, 0.0)
    used = np.zeros(len(points), bool)
    used[raw.simplices.ravel()] = True
    extent = raw.points[finite & used] if (finite & used).any() else np.zeros((1, raw.points.shape[1]))
    size = float(np.linalg.norm(np.ptp(extent, axis=0)))
    out: dict[str, Any] = {
        "kind": KINDS[k],
        "dimension": raw.points.shape[1],
        "points": len(points),
        "simplices": len(raw.simplices),
        "size": size,
        "whole_coordinates": bool(np.array_equal(extent, np.rint(extent))),
        "nan_points": int((~finite).sum()),
        "unreferenced_points": int((~used).sum()),
        "repeated_points": int((same_place(raw.points[finite]) != np.arange(int(finite.sum()))).sum()),
        "degenerate_simplices": int(degenerate(points, simplices, size).sum()),
        "duplicate_simplices": int(repeated(simplices).sum()) if k > 1 else 0,
        "checksum": _checksum(raw),
    }
    if len(simplices):
        out["components"] = components_of(simplices, len(points))[0]
        out |= _pose(points, simplices)
        if k == 3:
            out |= _surface(points, simplices)
        elif k == 2:
            out |= _curve(points, simplices)
    if raw.notes:
        out["notes"] = "; ".join(raw.notes)
    return out


def _surface(points: np.ndarray, triangles: np.ndarray) -> dict[str, Any]:
    edges = edges_of(triangles)
    count, label = components_of(triangles, len(points))
    turn = orientation(triangles, edges)
    boundary = int((edges.counts == 1).sum())
    crowded = int((edges.counts > 2).sum())
    out: dict[str, Any] = {
        "area": float(simplex_measures(points, triangles).sum()),
        "boundary_edges": boundary,
        "nonmanifold_edges": crowded,
        "watertight": boundary == 0 and crowded == 0,
        "euler": int(len(np.unique(triangles)) - len(edges.pairs) + len(triangles)),
        "misoriented_triangles": int(turn.flip.sum()),
        "one_sided_triangles": int(turn.one_sided.sum()),
    }
    if points.shape[1] == 3:
        volume = volumes(points, np.where(turn.flip[:, None], triangles[:, [0, 2, 1]], triangles), label)
        closed = np.bincount(label, weights=boundary_triangles(edges), minlength=count) == 0
        if closed.all():  # of a head whose skin is open and whose eyeballs are not, the eyeballs' volume says nothing
            out["volume"] = float(volume.sum())
        out["inward_components"] = int((volume[closed] < 0).sum())
    return out


def _curve(points: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    # a file may store a curve as separate segments, or repeat points along it: judged after joining them
    target = merge_curve(points, edges, 0.0)
    joined = target[edges]
    joined = joined[joined[:, 0] != joined[:, 1]]
    out: dict[str, Any] = {"length": float(simplex_measures(points, edges).sum())}
    if not len(joined):
        return out
    count, label = components_of(joined, len(points))
    closed = closed_curves(joined, label)
    degree = np.bincount(joined.ravel(), minlength=len(points))
    out |= {"components": count, "closed_curves": int(closed.sum()), "branch_points": int((degree > 2).sum())}
    if points.shape[1] == 2:
        area = signed_areas(points, joined, label)
        out["area"] = float(area[closed].sum())
        out["clockwise_curves"] = int((area[closed] < 0).sum())
        out["self_contacts"], out["self_crossings"] = self_meetings(points, joined)
    return out


def _pose(points: np.ndarray, simplices: np.ndarray) -> dict[str, Any]:
    """Centroid, principal axes (longest first) and root mean square radius, weighted by area or length; and the fingerprint."""
    k = simplices.shape[1]
    measures = simplex_measures(points, simplices)
    if not measures.sum() > 0:
        measures = np.ones(len(simplices))
    weight = np.bincount(simplices.ravel(), weights=np.repeat(measures / k, k), minlength=len(points))
    weight = weight / weight.sum()
    centroid = weight @ points
    centred = points - centroid
    axes = np.linalg.svd((centred * weight[:, None]).T @ centred)[2]
    radius = np.linalg.norm(centred[np.unique(simplices)], axis=1)
    return {
        "centroid": [float(x) for x in centroid],
        "axis": [float(x) for x in axes[0]],
        "centroid_size": float(np.sqrt(weight @ (centred**2).sum(1))),
        "signature": [float(x) for x in np.quantile(radius, np.linspace(0, 1, SIGNATURE))],
    }


def _checksum(raw: Raw) -> str:
    """Of the content, so that the same mesh in two formats is found too (coordinates rounded to float32, as most formats store them)."""
    digest = hashlib.sha256(np.ascontiguousarray(raw.points + 0.0, dtype="<f4").tobytes())
    digest.update(np.ascontiguousarray(raw.simplices, dtype="<i8").tobytes())
    return digest.hexdigest()[:16]
