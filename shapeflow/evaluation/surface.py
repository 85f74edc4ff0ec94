"""Distances between shapes: from the vertices of one to the surface, the curve or the points of the other.

d(a → b) at vertex i = min over y in b of |a_i − y|,   exact: y ranges over cells, not over vertices.
mean = ½ (Σ μ_i d(a → b)_i + Σ ν_j d(b → a)_j),   μ, ν the vertex shares of area or length, so that sampling density does not weigh.
p95  = the larger of the two directions' 95 % quantiles, weighted alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapeflow.closest import closest_points
from shapeflow.errors import MeshError, ShapeflowError
from shapeflow.shape import Shape


def surface_distance(a: Shape, b: Shape) -> tuple[float, float]:
    """Symmetric vertex-to-surface distance of two shapes: (mean, 95 % quantile), mesh units."""
    forth, back = directed_distances(a, b), directed_distances(b, a)
    mu, nu = a.masses(), b.masses()
    mean = 0.5 * (float(forth @ mu) + float(back @ nu))
    return mean, max(_quantile(forth, mu, 0.95), _quantile(back, nu, 0.95))


def directed_distances(a: Shape, b: Shape) -> NDArray[np.float64]:
    """Distance of every vertex of `a` to `b`: (n_a,), mesh units."""
    if a.points.shape[1] != b.points.shape[1]:
        raise MeshError(
            f"a distance needs shapes of one dimension; received points {a.points.shape} and {b.points.shape}"
        )
    for name, shape in (("first", a), ("second", b)):
        if not len(shape.points) or not np.isfinite(shape.points).all():
            raise MeshError(
                f"the {name} shape of a distance has {len(shape.points)} points, all of which must exist and be finite"
            )
    return closest_points(a.points, b).distance


def landmark_error(a: NDArray, b: NDArray) -> float:
    """Mean distance of corresponding landmarks (L, d), mesh units, over those that both have (a missing landmark is a row of NaN)."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 2 or a.shape != b.shape or not len(a):
        raise ShapeflowError(
            f"landmarks must correspond one to one: received arrays {a.shape} and {b.shape}; check the landmark files"
        )
    distances = np.linalg.norm(a - b, axis=1)
    known = np.isfinite(distances)
    return float(distances[known].mean()) if known.any() else float("nan")


def _quantile(values: NDArray, weights: NDArray, level: float) -> float:
    """Smallest value below which `level` of the weight lies."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    return float(values[order[min(np.searchsorted(cumulative, level * cumulative[-1]), len(values) - 1)]])
