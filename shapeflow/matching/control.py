"""Where momenta live: on the source's vertices, on a regular grid around it, or on some of its vertices.

Off the vertices the mesh is carried passively: fewer momenta, the same metric.
"""

from __future__ import annotations

import numpy as np

from shapeflow.errors import ConfigError
from shapeflow.matching.spec import MatchingSpec
from shapeflow.sampling import farthest_points
from shapeflow.shape import Shape


def control_points(shape: Shape, spec: MatchingSpec) -> np.ndarray | None:
    """(n, d) control points of one source, or None when they are its vertices."""
    if spec.control_points == "vertices":
        return None
    if spec.control_points == "grid":
        return grid(shape.points, spec.control_spacing or spec.sigma)
    count = spec.control_count or max(1, len(shape.points) // 4)
    return shape.points[farthest_points(shape.points, count)]


def grid(points: np.ndarray, spacing: float) -> np.ndarray:
    """A regular grid on the bounding box, centred on every axis (Deformetrica's rule: offset ½(L − s⌊L/s⌋), then
    steps of s).
    """
    low, high = points.min(0), points.max(0)
    offset = 0.5 * ((high - low) - spacing * np.floor((high - low) / spacing))
    axes = [np.arange(a + o, b + 1e-10, spacing) for a, b, o in zip(low, high, offset, strict=True)]
    if np.prod([float(len(a)) for a in axes]) > 1e6:
        raise ConfigError(
            f"a control grid of spacing {spacing} over a box of {high - low} has over a million points: use a larger control_spacing"
        )
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, points.shape[1])
