"""Small shapes that tests share."""

from __future__ import annotations

import numpy as np

from shapeflow.shape import Shape


def tetrahedron() -> Shape:
    """Faces outwards."""
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    return Shape(points, np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))


def sphere(rows: int = 12, radius: float = 1.0, seed: int | None = None) -> Shape:
    """A closed, outward-facing sphere of latitude and longitude; with a seed, bumpy, and by the phases without symmetry."""
    u = np.linspace(0, 2 * np.pi, 2 * rows, endpoint=False)
    v = np.linspace(0, np.pi, rows + 2)[1:-1]
    lat, lon = np.meshgrid(v, u, indexing="ij")
    ring = np.stack([np.sin(lat) * np.cos(lon), np.sin(lat) * np.sin(lon), np.cos(lat)], -1).reshape(-1, 3)
    points = radius * np.concatenate([ring, [[0, 0, 1.0], [0, 0, -1.0]]])
    index = np.arange(len(ring)).reshape(rows, -1)
    after = np.roll(index, -1, axis=1)
    faces = [
        np.stack([index[:-1], index[1:], after[1:]], -1).reshape(-1, 3),
        np.stack([index[:-1], after[1:], after[:-1]], -1).reshape(-1, 3),
        np.stack([np.full(2 * rows, len(ring)), index[0], after[0]], -1),
        np.stack([np.full(2 * rows, len(ring) + 1), after[-1], index[-1]], -1),
    ]
    if seed is not None:
        rng = np.random.default_rng(seed)
        points = points * np.array([3.0, 1.7, 1.0]) + 0.4 * np.sin(
            points @ rng.normal(size=(3, 3)) * 2 + rng.normal(size=3)
        )
    return Shape(points, np.concatenate(faces))


def loop(n: int = 40, clockwise: bool = False) -> Shape:
    """A closed planar curve, an egg."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    points = np.stack([2 * np.cos(t) + 0.3 * np.cos(2 * t), np.sin(t)], 1)
    edges = np.stack([np.arange(n), np.roll(np.arange(n), -1)], 1)
    return Shape(points[::-1] if clockwise else points, edges)


def rotation(seed: int, d: int = 3) -> np.ndarray:
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
    q[:, 0] *= np.sign(np.linalg.det(q))
    return q
