"""The nearest point of a shape, exactly: which simplex it lies on and with which weights.

This is what carries a result from 1,000 vertices to 100,000: a vertex of the full mesh is w_0 q_a + w_1 q_b + w_2 q_c on the decimated one.
With u the distance to the nearest vertex, a simplex with barycentre c and radius r can only be nearer if |p - c| <= u + r: a k-d tree of the
barycentres finds those, by classes of radius so that one large triangle does not widen everybody's search.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from shapeflow.shape import Shape


class Closest(NamedTuple):
    distance: np.ndarray  # (n,) in mesh units
    simplex: np.ndarray  # (n,) row of `simplices`
    weights: np.ndarray  # (n, k) barycentric, sum to one

    def carry(self, simplices: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(n, ...) values at the points, interpolated from `values (n_vertices, ...)`."""
        return np.einsum("nk,nk...->n...", self.weights, values[simplices[self.simplex]])


_SLACK = (
    1 + 1e-9
)  # on bounds that hold with equality when a point lies on a vertex: rounding must not lose its only candidate
_CHUNK = 20_000  # points at a time: some 50 candidates each keep the work arrays under 100 MB


def closest_points(points: np.ndarray, shape: Shape) -> Closest:
    """Nearest point of `shape` to each of `points (n, d)`."""
    corners = shape.points[shape.simplices]  # (m, k, d)
    centres = corners.mean(1)
    radii = np.linalg.norm(corners - centres[:, None], axis=2).max(1)
    vertices = cKDTree(shape.points[np.unique(shape.simplices)])
    # classes of radius: within one, the largest is at most twice the smallest
    floor = max(float(radii.max()) * 2.0**-12, np.finfo(float).tiny)
    klass = np.floor(np.log2(np.maximum(radii, floor) / floor)).astype(int)
    trees = [
        (np.flatnonzero(klass == c), cKDTree(centres[klass == c]), radii[klass == c].max()) for c in np.unique(klass)
    ]
    parts = [
        _nearest(points[i : i + _CHUNK], corners, centres, radii, vertices, trees)
        for i in range(0, len(points), _CHUNK)
    ]
    return Closest(*(np.concatenate(x) for x in zip(*parts, strict=True)))


def _nearest(
    points: np.ndarray, corners: np.ndarray, centres: np.ndarray, radii: np.ndarray, vertices: cKDTree, trees: list
) -> Closest:
    bound = vertices.query(points)[0] * (1 + 1e-12) + 1e-300
    owner, simplex = [], []
    for members, tree, radius in trees:
        hits = tree.query_ball_point(points, (bound + radius) * _SLACK)
        sizes = np.fromiter(map(len, hits), int, len(hits))
        owner.append(np.repeat(np.arange(len(points)), sizes))
        simplex.append(members[np.concatenate([np.asarray(h, int) for h in hits])] if sizes.sum() else np.empty(0, int))
    i, t = np.concatenate(owner), np.concatenate(simplex)
    # a barycentre lies on its simplex, so the nearest one is a bound as well: most candidates go before the exact test
    reach = np.linalg.norm(points[i] - centres[t], axis=1)
    np.minimum.at(bound, i, reach * (1 + 1e-12))
    close = reach <= (bound[i] + radii[t]) * _SLACK
    i, t = i[close], t[close]
    weights = _weights(points[i], corners[t])
    squared = ((np.einsum("nk,nkd->nd", weights, corners[t]) - points[i]) ** 2).sum(1)
    order = np.lexsort((t, squared, i))  # ties go to the first simplex: the same answer on every machine
    first = order[np.unique(i[order], return_index=True)[1]]
    return Closest(np.sqrt(squared[first]), t[first], weights[first])


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
