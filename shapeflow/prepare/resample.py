"""A shape with a given number of vertices: surfaces by edge collapses or even remeshing, curves by arc length, points by farthest points."""

from __future__ import annotations

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.prepare.decimate import decimate
from shapeflow.sampling import farthest_points
from shapeflow.shape import Shape


def resample(shape: Shape, n_points: int | None, method: str) -> tuple[Shape, str]:
    """(the shape with `n_points` vertices, who made it); None leaves it. Per-vertex arrays follow from the nearest vertex of the original."""
    if n_points is None or method == "none":
        return shape, "nothing"
    if shape.kind == "curves":
        return resample_curves(shape, n_points), "arc length"
    if shape.n_points <= n_points and (method == "decimate" or shape.kind == "points"):
        return shape, "nothing"
    if shape.kind == "points":
        keep = np.sort(farthest_points(shape.points, n_points))
        return Shape(shape.points[keep], None, {k: v[keep] for k, v in shape.point_data.items()}), "farthest points"  # type: ignore[arg-type]
    if method == "remesh":
        from shapeflow.prepare.remesh import remesh

        return carry_arrays(shape, remesh(shape, n_points)), "pyacvd"
    coarse, made_by = decimate(shape, n_points)
    return carry_arrays(shape, coarse), made_by


def carry_arrays(full: Shape, coarse: Shape) -> Shape:
    """Arrays of the nearest vertex: right for labels as for numbers."""
    if not full.point_data or coarse is full:
        return coarse
    from scipy.spatial import cKDTree

    nearest = cKDTree(full.points).query(coarse.points)[1]
    return coarse.replace(point_data={k: v[nearest] for k, v in full.point_data.items()})


def polylines(edges: np.ndarray, n_points: int) -> list[tuple[np.ndarray, bool]]:
    """Every component as (vertices in order, closed), in the sense of the majority of its edges. Refused when curves branch."""
    degree = np.bincount(edges.ravel(), minlength=n_points)
    if degree.max() > 2:
        raise MeshError(
            f"curves branch at {int((degree > 2).sum())} vertices; expected every vertex on at most two edges"
        )
    neighbours: list[list[int]] = [[] for _ in range(n_points)]
    for a, b in edges.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    forward = set(map(tuple, edges.tolist()))
    seen = np.zeros(n_points, bool)
    ends = np.flatnonzero(degree == 1)
    found = []
    for start in [*ends.tolist(), *edges[:, 0].tolist()]:  # lines first, from an end; what is left are loops
        if seen[start]:
            continue
        order, previous = [start], -1
        seen[start] = True
        while True:
            onward = [v for v in neighbours[order[-1]] if v != previous and not seen[v]]
            if not onward:
                break
            previous = order[-1]
            order.append(onward[0])
            seen[onward[0]] = True
        closed = degree[start] == 2 and len(order) > 2
        with_us = sum((a, b) in forward for a, b in zip(order, order[1:], strict=False))
        if 2 * with_us < len(order) - 1:
            order = order[:1] + order[:0:-1] if closed else order[::-1]
        found.append((np.array(order), bool(closed)))
    return sorted(found, key=lambda line: int(line[0].min()))


def straightened(edges: np.ndarray, n_points: int) -> np.ndarray:
    """The edges, those turned that run against the majority of their curve; branching curves are left as they are."""
    if np.bincount(edges.ravel(), minlength=n_points).max() > 2:
        return edges
    following = np.full(n_points, -1)
    for order, closed in polylines(edges, n_points):
        following[order[:-1]] = order[1:]
        if closed:
            following[order[-1]] = order[0]
    return np.where((following[edges[:, 0]] == edges[:, 1])[:, None], edges, edges[:, ::-1])


def resample_curves(shape: Shape, n_points: int) -> Shape:
    """`n_points` vertices evenly spaced by arc length, shared among the curves by their lengths (at least 3 a loop, 2 a line)."""
    lines = polylines(shape.simplices, shape.n_points)
    closed_points = [np.concatenate([shape.points[o], shape.points[o[:1]]]) if c else shape.points[o] for o, c in lines]
    arc = [np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(p, axis=0), axis=1))]) for p in closed_points]
    counts = _share(np.array([a[-1] for a in arc]), [3 if c else 2 for _, c in lines], n_points)
    points, edges, start = [], [], 0
    for (_, closed), p, s, n in zip(lines, closed_points, arc, counts, strict=True):
        at = np.linspace(0.0, s[-1], n + closed)[:n]
        points.append(np.stack([np.interp(at, s, x) for x in p.T], 1))
        index = np.arange(n) + start
        edges.append(np.stack([index, np.roll(index, -1)], 1)[: n if closed else n - 1])
        start += n
    return carry_arrays(shape, Shape(np.concatenate(points), np.concatenate(edges)))


def _share(lengths: np.ndarray, fewest: list[int], total: int) -> list[int]:
    """Integers that sum to `total` (or to the fewest possible), in proportion to lengths, by largest remainders."""
    counts = np.array(fewest)
    if counts.sum() >= total:
        return counts.tolist()
    ideal = np.maximum(lengths / lengths.sum() * total, counts)
    free = ideal > counts
    spare = total - counts[~free].sum()
    if free.any():
        ideal[free] *= spare / ideal[free].sum()
    counts = np.maximum(np.floor(ideal).astype(int), counts)
    for i in np.argsort(-(ideal - np.floor(ideal)), kind="stable")[: max(0, total - int(counts.sum()))]:
        counts[i] += 1
    while counts.sum() > total:  # rounding up to the minimum took too many: the largest give back
        counts[int(np.argmax(counts - np.array(fewest)))] -= 1
    return counts.tolist()
