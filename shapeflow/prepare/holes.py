"""Optional repairs of geometry: closing small holes, and Taubin's smoothing."""

from __future__ import annotations

import numpy as np

from shapeflow.io.raw import Raw
from shapeflow.prepare.topology import edges_of


def fill_holes(raw: Raw, longest: int) -> tuple[Raw, int]:
    """Close every simple boundary loop of at most `longest` edges by a fan around its barycentre; returns the number of loops closed.

    The new vertex takes the mean of the loop's arrays. Loops that meet in a vertex are left open: where one ends there is a matter of opinion.
    """
    loops = [loop for loop in boundary_loops(raw.simplices) if len(loop) <= longest]
    if not loops:
        return raw, 0
    points, triangles, data = [raw.points], [raw.simplices], {k: [v] for k, v in raw.point_data.items()}
    count = len(raw.points)
    for loop in loops:
        if len(loop) == 3:
            triangles.append(loop[None])
            continue
        triangles.append(np.stack([loop, np.roll(loop, -1), np.full(len(loop), count)], 1))
        points.append(raw.points[loop].mean(0, keepdims=True))
        for k, v in raw.point_data.items():
            data[k].append(v[loop].mean(0, keepdims=True).astype(v.dtype))
        count += 1
    return (
        raw._replace(
            points=np.concatenate(points),
            simplices=np.concatenate(triangles),
            point_data={k: np.concatenate(v) for k, v in data.items()},
        ),
        len(loops),
    )


def boundary_loops(triangles: np.ndarray) -> list[np.ndarray]:
    """Closed boundaries as vertices in order, against the sense of the triangles there, so that a fan over them agrees with its neighbours."""
    edges = edges_of(triangles)
    half = np.flatnonzero(edges.counts[edges.of_half] == 1)
    start, stop = triangles[half // 3, half % 3], triangles[half // 3, (half + 1) % 3]
    repeated = (
        np.concatenate([np.flatnonzero(np.bincount(x) > 1) for x in (start, stop)]) if len(half) else np.empty(0, int)
    )
    onward = {int(b): int(a) for a, b in zip(start, stop, strict=True)}
    crossing = set(repeated.tolist())
    loops = []
    while onward:
        first = min(onward)
        loop, at = [first], onward.pop(first)
        while at != first and at in onward:
            loop.append(at)
            at = onward.pop(at)
        if at == first and not crossing.intersection(loop):
            loops.append(np.array(loop))
    return loops


def taubin(
    points: np.ndarray, simplices: np.ndarray, rounds: int, shrink: float = 0.5, grow: float = -0.53
) -> np.ndarray:
    """(n, d) points after rounds of q += shrink L q, q += grow L q, with L the mean of the neighbours less the vertex (Taubin 1995): noise
    goes, size stays. Boundary vertices of surfaces move along the boundary alone, ends of curves stay."""
    from scipy.sparse import coo_array, diags_array

    n = len(points)
    if simplices.shape[1] == 3:
        edges = edges_of(simplices)
        rim = edges.pairs[edges.counts == 1]
        on_rim = np.zeros(n, bool)
        on_rim[rim.ravel()] = True
        inner = edges.pairs[~on_rim[edges.pairs].all(1)]
        a = np.concatenate([inner[~on_rim[inner[:, 0]], 0], inner[~on_rim[inner[:, 1]], 1], rim[:, 0], rim[:, 1]])
        b = np.concatenate([inner[~on_rim[inner[:, 0]], 1], inner[~on_rim[inner[:, 1]], 0], rim[:, 1], rim[:, 0]])
    else:
        ends = np.bincount(simplices.ravel(), minlength=n) < 2
        pairs = np.concatenate([simplices, simplices[:, ::-1]])
        a, b = pairs[~ends[pairs[:, 0]]].T
    neighbours = coo_array((np.ones(len(a)), (a, b)), shape=(n, n)).tocsr()
    degree = np.asarray(neighbours.sum(1)).ravel()
    mean = diags_array(1 / np.maximum(degree, 1)) @ neighbours
    moves = (degree > 0)[:, None]
    for _ in range(rounds):
        for factor in (shrink, grow):
            points = points + factor * moves * (mean @ points - points)
    return points
