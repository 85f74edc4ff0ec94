"""The nearest point of a shape, exactly: which simplex it lies on and with which weights.

This is what carries a result from 1,000 vertices to 100,000: a vertex of the full mesh is w_0 q_a + w_1 q_b + w_2 q_c on the decimated one. VTK's
cell locator finds the simplex, in C++ and in memory that does not grow with the number of points; the weights follow from it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shapeflow.io.vtkfiles import polydata
from shapeflow.shape import Shape


class Closest(NamedTuple):
    distance: np.ndarray  # (n,) in mesh units
    simplex: np.ndarray  # (n,) row of `simplices`
    weights: np.ndarray  # (n, k) barycentric, sum to one

    def carry(self, simplices: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(n, ...) values at the points, interpolated from `values (n_vertices, ...)`."""
        return np.einsum("nk,nk...->n...", self.weights, values[simplices[self.simplex]])


_CHUNK = 50_000  # points at a time


def closest_points(points: np.ndarray, shape: Shape) -> Closest:
    """Nearest point of `shape` to each of `points (n, d)`."""
    simplex = _nearest_simplices(points, shape)
    parts = []
    for i in range(0, len(points), _CHUNK):
        p, corners = points[i : i + _CHUNK], shape.points[shape.simplices[simplex[i : i + _CHUNK]]]
        weights = _weights(p, corners)
        parts.append((np.linalg.norm(np.einsum("nk,nkd->nd", weights, corners) - p, axis=1), weights))
    return Closest(np.concatenate([d for d, _ in parts]), simplex, np.concatenate([w for _, w in parts]))


def _nearest_simplices(points: np.ndarray, shape: Shape) -> np.ndarray:
    if shape.simplices.shape[1] == 1:
        from scipy.spatial import cKDTree

        return cKDTree(shape.points[shape.simplices[:, 0]]).query(points)[1]
    from vtkmodules.vtkCommonCore import reference
    from vtkmodules.vtkCommonDataModel import vtkGenericCell, vtkStaticCellLocator

    mesh = polydata(shape.replace(point_data={}))
    locator = vtkStaticCellLocator()
    locator.SetDataSet(mesh)
    locator.BuildLocator()
    found, cell, number, part, squared = [0.0, 0.0, 0.0], vtkGenericCell(), reference(0), reference(0), reference(0.0)
    out = np.empty(len(points), np.int64)
    spatial = np.zeros((len(points), 3))
    spatial[:, : points.shape[1]] = points
    for start in range(0, len(points), _CHUNK):
        for i, p in enumerate(spatial[start : start + _CHUNK].tolist(), start):
            locator.FindClosestPoint(p, found, cell, number, part, squared)  # pyright: ignore[reportArgumentType]
            out[i] = number.get()  # pyright: ignore[reportAttributeAccessIssue]
    return out


def _weights(p: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(n, k) barycentric weights of the point of simplex `corners (n, k, d)` nearest to `p (n, d)`."""
    k = corners.shape[1]
    if k == 1:
        return np.ones((len(p), 1))
    if k == 2:
        return _on_edge(p, corners[:, 0], corners[:, 1])
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, ac, ap = b - a, c - a, p - a
    d11, d12, d22 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    e1, e2 = (ab * ap).sum(1), (ac * ap).sum(1)
    det = d11 * d22 - d12 * d12
    safe = np.where(det > 0, det, 1.0)
    v, w = (d22 * e1 - d12 * e2) / safe, (d11 * e2 - d12 * e1) / safe
    out = np.stack([1 - v - w, v, w], 1)
    outside = (det <= 0) | (out < 0).any(1)
    if outside.any():  # then the nearest point lies on an edge
        best = np.full(int(outside.sum()), np.inf)
        chosen = np.zeros((len(best), 3))
        q, x = p[outside], corners[outside]
        for i, j in ((0, 1), (1, 2), (2, 0)):
            edge = _on_edge(q, x[:, i], x[:, j])
            squared = ((edge[:, :1] * x[:, i] + edge[:, 1:] * x[:, j] - q) ** 2).sum(1)
            nearer = squared < best
            best = np.where(nearer, squared, best)
            full = np.zeros_like(chosen)
            full[:, i], full[:, j] = edge[:, 0], edge[:, 1]
            chosen[nearer] = full[nearer]
        out[outside] = chosen
    return out


def _on_edge(p: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    ab = b - a
    length = (ab * ab).sum(1)
    t = np.clip(((p - a) * ab).sum(1) / np.where(length > 0, length, 1.0), 0.0, 1.0)
    return np.stack([1 - t, t], 1)
