"""Closed surfaces of an exact number of vertices, for benchmarks: star-shaped, smooth, different for every seed."""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull

from shapeflow.shape import Shape


def star(count: int, seed: int = 0, radius: float = 100.0, roughness: float = 0.15) -> Shape:
    """A closed triangulated surface of exactly `count` vertices: the convex hull of near-uniform directions (a Fibonacci spiral), moved out to a smooth
    random radius. Triangles point outwards."""
    k = np.arange(count) + 0.5
    z, angle = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - z * z)
    u = np.stack([ring * np.cos(angle), ring * np.sin(angle), z], 1)
    triangles = ConvexHull(u).simplices
    a, b, c = (u[triangles[:, i]] for i in range(3))
    inward = (np.cross(b - a, c - a) * (a + b + c)).sum(1) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    g = np.random.default_rng(seed)
    waves, phases = 2 * g.standard_normal((12, 3)), g.uniform(0, 2 * np.pi, 12)
    scale = 1 + roughness * np.cos(u @ waves.T + phases).mean(1) * np.sqrt(12)
    return Shape(radius * scale[:, None] * u, triangles)
