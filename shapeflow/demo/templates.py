"""Smooth templates, sampled at any number of points, and the same templates with one half sampled more densely.

Sampling and shape are kept apart: a chart (points of the unit sphere, of the unit disc, of the unit circle) is triangulated, and `embed`
lifts any point of the chart to the template. A vertex added to the chart therefore lies on the same smooth shape.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.pi * (3.0 - np.sqrt(5.0))


def chart(kind: str, n: int) -> tuple[NDArray, NDArray]:
    """`n` points of the chart of a template, and the cells between them (k = 3 for surfaces, 2 for curves)."""
    return {"closed": _sphere, "open": _disc, "curves": _circle}[kind](n)


def _sphere(n: int) -> tuple[NDArray, NDArray]:
    """Fibonacci points of the unit sphere; the faces of their hull, oriented outwards."""
    from scipy.spatial import ConvexHull  # a plan, which only counts subjects, does not pay for it

    i = np.arange(n)
    z = 1.0 - (2.0 * i + 1.0) / n
    radius = np.sqrt(1.0 - z * z)
    points = np.stack([radius * np.cos(GOLDEN * i), radius * np.sin(GOLDEN * i), z], axis=1)
    faces = _canonical(ConvexHull(points).simplices)
    corners = points[faces]
    inward = np.linalg.det(corners) < 0  # the hull contains the origin: a face seen from outside has positive volume
    faces[inward] = faces[inward][:, [0, 2, 1]]
    return points, faces


def _disc(n: int) -> tuple[NDArray, NDArray]:
    """Sunflower points of the unit disc inside a ring of boundary points; Delaunay faces, counterclockwise."""
    from scipy.spatial import Delaunay

    ring = max(6, round(np.sqrt(np.pi * n)))
    inner = n - ring
    i = np.arange(inner)
    r = np.sqrt((i + 0.5) / inner) * (1.0 - 0.8 * np.pi / ring)
    theta = 2.0 * np.pi * np.arange(ring) / ring
    points = np.concatenate(
        [
            np.stack([r * np.cos(GOLDEN * i), r * np.sin(GOLDEN * i)], axis=1),
            np.stack([np.cos(theta), np.sin(theta)], axis=1),
        ]
    )
    faces = _canonical(Delaunay(points).simplices)
    u, v = points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]]
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    faces, area = faces[np.abs(area) > 1e-9], area[np.abs(area) > 1e-9]  # three ring points can be aligned to rounding
    faces[area < 0] = faces[area < 0][:, [0, 2, 1]]
    return points, faces


def _circle(n: int) -> tuple[NDArray, NDArray]:
    theta = 2.0 * np.pi * np.arange(n) / n
    i = np.arange(n)
    return np.stack([np.cos(theta), np.sin(theta)], axis=1), np.stack([i, (i + 1) % n], axis=1)


def _canonical(faces: NDArray) -> NDArray:
    """Faces in an order that does not depend on Qhull's internals: smallest corner first, then sorted."""
    faces = np.stack([np.roll(f, -int(np.argmin(f))) for f in faces.astype(np.int64)])
    return faces[np.lexsort(faces.T[::-1])]


def embed(kind: str, c: NDArray) -> NDArray:
    """Chart points (n, 2 or 3) on the template (n, d), in mesh units: a bean, a shell or a rounded triangle about one unit long."""
    if kind == "closed":
        x, y, z = c.T
        bend = 0.12 * (1.0 - 2.0 * x * x)
        return np.stack([0.5 * x, (0.28 + 0.06 * x) * y, (0.22 - 0.04 * x) * z + bend], axis=1)
    if kind == "open":
        x, y = c.T
        return np.stack(
            [0.5 * x, 0.36 * y * (1.0 + 0.2 * x), 0.25 * (1.0 - x * x - 0.6 * y * y) + 0.05 * x * y], axis=1
        )
    theta = np.arctan2(c[:, 1], c[:, 0])
    r = 0.42 * (1.0 + 0.16 * np.cos(3.0 * theta) + 0.08 * np.sin(2.0 * theta))
    return np.stack([r * np.cos(theta), 0.8 * r * np.sin(theta)], axis=1)


def refine_half(kind: str, points: NDArray, cells: NDArray) -> tuple[NDArray, NDArray]:
    """The chart with every edge of its half x ≥ 0 halved, neighbours split so that no vertex hangs. The first points are the old ones."""
    edges = np.sort(np.concatenate([cells[:, [a, b]] for a, b in _sides(cells.shape[1])]), axis=1)
    edges = np.unique(edges, axis=0)
    edges = edges[(points[edges, 0] >= -1e-12).all(axis=1)]
    middle = {(int(a), int(b)): len(points) + i for i, (a, b) in enumerate(edges)}
    added = points[edges].mean(axis=1)
    # a middle of two points of the unit sphere or circle is pushed back to it: the shape, or the rim of the open one, stays smooth
    round_ = (np.linalg.norm(points[edges], axis=2) > 1.0 - 1e-9).all(axis=1)
    added[round_] /= np.linalg.norm(added[round_], axis=1, keepdims=True)
    split = _split_curve if cells.shape[1] == 2 else _split_triangle
    new = [piece for cell in cells for piece in split(tuple(int(v) for v in cell), middle)]
    return np.concatenate([points, added]), np.array(new, dtype=np.int64)


def _sides(k: int) -> tuple[tuple[int, int], ...]:
    return ((0, 1),) if k == 2 else ((0, 1), (1, 2), (2, 0))


def _split_curve(cell: tuple[int, ...], middle: dict[tuple[int, int], int]) -> list[tuple[int, ...]]:
    a, b = cell
    m = middle.get((min(a, b), max(a, b)))
    return [(a, b)] if m is None else [(a, m), (m, b)]


def _split_triangle(cell: tuple[int, ...], middle: dict[tuple[int, int], int]) -> list[tuple[int, ...]]:
    """One, two, three or four triangles, for as many halved sides as the triangle has; orientation kept."""
    mids = [middle.get((min(cell[i], cell[j]), max(cell[i], cell[j]))) for i, j in _sides(3)]
    halved = sum(m is not None for m in mids)
    if halved == 0:
        return [cell]
    if halved == 3:
        (a, b, c), (ab, bc, ca) = cell, mids
        return [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]  # type: ignore[list-item]
    turn = next(i for i in range(3) if (mids[i] is not None) == (halved == 1))  # the odd side first
    (a, b, c), (ab, bc, ca) = np.roll(cell, -turn).tolist(), mids[turn:] + mids[:turn]
    if halved == 1:
        return [(a, ab, c), (ab, b, c)]  # type: ignore[list-item]
    return [(a, b, bc), (a, bc, ca), (ca, bc, c)]  # type: ignore[list-item]
