"""Where planar curves meet themselves.

Segments [a, b] and [c, d] meet when each has its ends on both sides of (or on) the other's line and their boxes overlap; they cross when the sides
are strict. Candidates are found by a sweep: segments sorted by where they begin along the longer axis, each compared with those that begin before it
ends. Neighbours, which share a vertex, do not count.

A curve drawn on a grid of pixels crosses itself through a point that it visits twice: there it crosses when the second visit comes and goes on
different sides of the first. Where it runs along itself before it parts on the other side it is only said to touch.
"""

from __future__ import annotations

import numpy as np

from shapeflow.prepare.topology import same_place


def self_meetings(points: np.ndarray, edges: np.ndarray) -> tuple[int, int]:
    """(pairs of segments that meet, places where the curve crosses itself), for `points (n, 2)` and `edges (m, 2)`. Exact for whole coordinates."""
    meets, crosses = _segments(points, edges)
    return meets, crosses + _visits(points, edges)


def _segments(points: np.ndarray, edges: np.ndarray) -> tuple[int, int]:
    """(pairs that meet, pairs that cross inside both)."""
    ends = points[edges]  # (m, 2, 2)
    axis = int(np.argmax(np.ptp(points, axis=0)))
    order = np.argsort(ends[..., axis].min(1), kind="stable")
    edges, ends = edges[order], ends[order]
    low, high = ends.min(1), ends.max(1)  # (m, 2)
    meets = crosses = 0
    first = np.arange(len(edges))
    step = 0
    while True:
        step += 1
        first = first[first + step < len(edges)]
        first = first[low[first + step, axis] <= high[first, axis]]  # sorted: who fails now fails ever after
        if not len(first):
            return meets, crosses
        i, j = first, first + step
        near = (low[i, 1 - axis] <= high[j, 1 - axis]) & (low[j, 1 - axis] <= high[i, 1 - axis])
        near &= (edges[i][:, :, None] != edges[j][:, None, :]).all((1, 2))
        i, j = i[near], j[near]
        (a, b), (c, d) = ends[i].swapaxes(0, 1), ends[j].swapaxes(0, 1)
        one, other = _side(a, b, c) * _side(a, b, d), _side(c, d, a) * _side(c, d, b)
        meets += int(((one <= 0) & (other <= 0)).sum())
        crosses += int(((one < 0) & (other < 0)).sum())


def _side(a: np.ndarray, b: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Sign of the turn a, b, p: on which side of the line through a and b the point lies."""
    u, v = b - a, p - a
    return np.sign(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])


def _visits(points: np.ndarray, edges: np.ndarray) -> int:
    """Pairs of vertices at one place where the curve passes through itself."""
    before, after = np.full(len(points), -1), np.full(len(points), -1)
    after[edges[:, 0]], before[edges[:, 1]] = edges[:, 1], edges[:, 0]
    inner = np.flatnonzero((before >= 0) & (after >= 0))
    place = same_place(points[inner])
    order = np.argsort(place, kind="stable")
    first, step, found = np.arange(len(inner)), 0, 0
    while True:
        step += 1
        first = first[first + step < len(inner)]
        first = first[place[order[first]] == place[order[first + step]]]
        if not len(first):
            return found
        v, w = inner[order[first]], inner[order[first + step]]
        start = _angle(points[before[v]] - points[v])
        # anticlockwise from where the first visit comes from: where it goes, and where the second comes from and goes
        out, come, go = (
            (_angle(points[end] - points[v]) - start) % (2 * np.pi) for end in (after[v], before[w], after[w])
        )
        distinct = (come != 0) & (go != 0) & (come != out) & (go != out)
        found += int((distinct & ((come < out) != (go < out))).sum())


def _angle(u: np.ndarray) -> np.ndarray:
    return np.arctan2(u[:, 1], u[:, 0])
