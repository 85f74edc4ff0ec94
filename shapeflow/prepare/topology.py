"""How simplices hang together: edges, components, orientation, boundary. Plain arrays in and out, because dirty meshes are no `Shape`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from shapeflow.shape import simplex_measures


class Edges(NamedTuple):
    """The edges of a triangle mesh. Half-edge h = 3 t + c goes from corner c of triangle t to the next corner."""

    pairs: np.ndarray  # (e, 2) sorted vertex pairs, unique
    of_half: np.ndarray  # (3 m,) index into pairs
    forward: np.ndarray  # (3 m,) whether the half-edge runs from the smaller index to the larger
    counts: np.ndarray  # (e,) triangles at the edge: 1 boundary, 2 inside, more non-manifold
    order: np.ndarray  # (3 m,) half-edges sorted by edge: those of edge i follow one another


def edges_of(triangles: np.ndarray) -> Edges:
    start = triangles.ravel()
    stop = triangles[:, [1, 2, 0]].ravel()
    forward = start < stop
    keys = np.where(forward, start, stop) * (int(triangles.max()) + 1) + np.where(forward, stop, start)
    of_half, order, firsts = _ranked(keys)
    n = int(triangles.max()) + 1
    unique = keys[order[firsts]]
    return Edges(np.stack([unique // n, unique % n], 1), of_half, forward, np.diff(np.append(firsts, len(keys))), order)


def _ranked(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rank of every key among the distinct ones, stable order, where each distinct key begins in that order)."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    new = np.ones(len(keys), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.cumsum(new) - 1
    return rank, order, np.flatnonzero(new)


def same_place(points: np.ndarray) -> np.ndarray:
    """(n,) for every point, the first point with exactly its coordinates: itself unless it repeats one. NaN equals nothing."""
    order = np.lexsort(points.T)
    ordered = points[order]
    new = np.ones(len(points), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(1)
    firsts = np.flatnonzero(new)
    lowest = np.minimum.reduceat(order, firsts) if len(points) else order
    out = np.empty(len(points), np.int64)
    out[order] = lowest[np.cumsum(new) - 1]
    return out


def components_of(simplices: np.ndarray, n_points: int) -> tuple[int, np.ndarray]:
    """(count, label of every simplex); simplices that share a vertex are together. Unreferenced vertices do not count."""
    k = simplices.shape[1]
    if k == 1 or not len(simplices):
        return min(1, len(simplices)), np.zeros(len(simplices), np.int64)
    rows = np.repeat(simplices[:, 0], k - 1)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, simplices[:, 1:].ravel())), shape=(n_points, n_points))
    labels = connected_components(graph, directed=False)[1][simplices[:, 0]]
    names, labels = np.unique(labels, return_inverse=True)
    return len(names), labels


class Orientation(NamedTuple):
    flip: np.ndarray  # (m,) which triangles to turn so that neighbours agree
    patch: np.ndarray  # (m,) in which patch of neighbours each lies
    one_sided: np.ndarray  # (m,) true in a patch that no turning makes agree (a Moebius band); nothing is turned there


def orientation(triangles: np.ndarray, edges: Edges) -> Orientation:
    """Turns that make neighbours agree.

    Neighbours are joined across edges of exactly two triangles; at a non-manifold edge there is nothing to agree on. Take two copies of every
    triangle, one turned, and join copies that agree: an orientable patch falls into two components, one for each sense; a one-sided patch is one.
    """
    m = len(triangles)
    first = (np.cumsum(edges.counts) - edges.counts)[edges.counts == 2]
    a, b = edges.order[first], edges.order[first + 1]
    t, s = a // 3, b // 3
    differ = edges.forward[a] == edges.forward[b]  # neighbours that agree run along their edge in opposite directions
    patch = _components(t, s, m)
    cover = _components(np.concatenate([t, t + m]), np.concatenate([s + m * differ, s + m * ~differ]), 2 * m)
    one_sided = cover[:m] == cover[m:]
    root = np.unique(patch, return_index=True)[1][patch]
    flip = (cover[:m] != cover[root]) & ~one_sided
    # the majority keeps its sense
    share = np.bincount(patch, weights=flip) / np.bincount(patch)
    return Orientation(np.where(share[patch] > 0.5, ~flip, flip) & ~one_sided, patch, one_sided)


def _components(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def boundary_triangles(edges: Edges) -> np.ndarray:
    """(m,) true for triangles with an edge that no other triangle has."""
    return (edges.counts[edges.of_half] == 1).reshape(-1, 3).any(1)


def volumes(points: np.ndarray, triangles: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(labels,) signed volume of every component, positive when its triangles face outwards. Means something for closed components only."""
    centred = points - points[triangles[:, 0]].mean(0)  # the volume of a closed surface depends on no origin; digits do
    a, b, c = (centred[triangles[:, i]] for i in range(3))
    return np.bincount(label, weights=(a * np.cross(b, c)).sum(1) / 6)


def signed_areas(points: np.ndarray, edges: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(labels,) area that each planar curve encloses, positive anticlockwise: 1/2 sum (x_i y_j - x_j y_i)."""
    p = points - points[edges[:, 0]].mean(0)
    a, b = p[edges[:, 0]], p[edges[:, 1]]
    return 0.5 * np.bincount(label, weights=a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1])


def closed_curves(edges: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(labels,) true for curves whose every vertex has one edge in and one out."""
    n = int(edges.max()) + 1
    bad = np.bincount(edges[:, 0], minlength=n) != np.bincount(edges[:, 1], minlength=n)
    return np.bincount(label, weights=bad[edges].any(1)) == 0


def repeated(simplices: np.ndarray) -> np.ndarray:
    """(m,) true for a simplex whose set of corners came before."""
    rank, order, firsts = _ranked(_corner_keys(simplices))
    out = np.ones(len(simplices), bool)
    out[order[firsts]] = False
    return out


def surplus(simplices: np.ndarray) -> np.ndarray:
    """(m,) true for the repeated simplices to drop.

    Two triangles on the same corners that face opposite ways are a pocket without content: as oriented surfaces they cancel, and keeping one
    would leave a flap on a non-manifold edge, so both go. Repeated the same way, one stays. When most of the mesh is doubled, it is a sheet
    drawn from both sides: then one of each pair stays.
    """
    rank, order, firsts = _ranked(_corner_keys(simplices))
    twice = np.ones(len(simplices), bool)
    twice[order[firsts]] = False
    if simplices.shape[1] != 3 or not twice.any() or twice.mean() > 0.25:
        return twice
    a, b, c = simplices.T
    even = (a < b).astype(int) + (b < c) + (a < c)  # ordered pairs: odd and even permutations face opposite ways
    balance = np.bincount(rank, weights=np.where(even % 2, 1, -1))
    return twice | ((balance[rank] == 0) & (np.bincount(rank)[rank] > 1))


def _corner_keys(simplices: np.ndarray) -> np.ndarray:
    """(m,) one number a simplex, equal when the sets of corners are. Exact: corners are renumbered pair by pair to stay within 64 bits."""
    ordered = np.sort(simplices, axis=1)
    keys = ordered[:, 0]
    for column in range(1, simplices.shape[1]):
        if column > 1:
            keys = _ranked(keys)[0]
        keys = keys * (int(simplices.max()) + 1) + ordered[:, column]
    return keys


def degenerate(points: np.ndarray, simplices: np.ndarray, size: float) -> np.ndarray:
    """(m,) true for a simplex with a repeated corner or (at the precision of its coordinates) no extent."""
    if simplices.shape[1] == 1:
        return np.zeros(len(simplices), bool)
    ordered = np.sort(simplices, axis=1)
    same = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    # 1e-14 of size^2: a sliver is kept, what float32 or float64 coordinates cannot tell from a line is not
    floor = 0.0 if simplices.shape[1] == 2 else 1e-14 * size**2
    return same | (simplex_measures(points, simplices) <= floor)
