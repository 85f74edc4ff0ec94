"""Alignment without landmarks: principal axes, then closest points (Besl and McKay 1992), both ways.

Principal axes are known up to signs and, when two spreads are close, up to their order: all 24 rotations that permute and turn the axes are
tried briefly, the best few to the end. The 24 improper ones are tried as well, only to *report* that a mirrored subject would fit better.
"""

from __future__ import annotations

from itertools import permutations, product
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from shapeflow.prepare.procrustes import fit
from shapeflow.prepare.transform import Transform, similarity, translation
from shapeflow.shape import Shape


class Fit(NamedTuple):
    transform: Transform
    residual: float  # mean two-way distance between nearest vertices after the fit, mesh units
    mirrored_residual: float  # the same when the moving shape is reflected first


_SAMPLE = 600  # vertices of a side: enough for a pose
_FINISH = 3  # candidate rotations that are followed to convergence


def align(moving: Shape, fixed: Shape, *, similarity_fit: bool = False, check_mirror: bool = True) -> Fit:
    """The rotation and translation (and factor) that take `moving` onto `fixed`."""
    x, y = _sample(moving), _sample(fixed)
    tree = cKDTree(y)
    best = {}
    for proper in (True, False) if check_mirror else (True,):
        starts = _starts(x, y, proper)
        scored = sorted(
            ((_iterate(x, y, tree, s, 6, 0.0, False), i) for i, s in enumerate(starts)), key=lambda r: (r[0][1], r[1])
        )
        ends = [_iterate(x, y, tree, r[0][0], 120, 1e-7, False) for r in scored[: _FINISH if proper else 1]]
        best[proper] = min(ends, key=lambda r: r[1])
    transform, residual = best[True]
    if similarity_fit:
        transform, residual = _iterate(x, y, tree, transform, 120, 1e-7, True)
    return Fit(transform, residual, best[False][1] if check_mirror else float("nan"))


def _sample(shape: Shape) -> np.ndarray:
    from shapeflow.prepare.resample import farthest_points

    return shape.points[farthest_points(shape.points, _SAMPLE)]


def _starts(x: np.ndarray, y: np.ndarray, proper: bool) -> list[Transform]:
    """Principal axes of x onto those of y, in every order and sense of the axes, rotations (or reflections) only."""
    d = x.shape[1]
    ax, ay = (np.linalg.svd(p - p.mean(0), full_matrices=False)[2] for p in (x, y))
    out = []
    for order in permutations(range(d)):
        for signs in product((1.0, -1.0), repeat=d):
            linear = ay.T @ (np.array(signs)[:, None] * ax[list(order)])
            if (np.linalg.det(linear) > 0) == proper:
                out.append(similarity(linear, 1.0, y.mean(0) - linear @ x.mean(0)))
    return out


def _iterate(
    x: np.ndarray, y: np.ndarray, tree: cKDTree, start: Transform, rounds: int, tolerance: float, scaled: bool
) -> tuple[Transform, float]:
    """Closest points both ways: x to its nearest y, and every y to its nearest x, fitted together so that neither side may shrink away."""
    transform, last = start, np.inf
    base = Transform(np.diag([-1.0, 1, 1, 1])) if start.reflects else Transform()
    x0 = base.apply(x)  # a reflected start is a rotation of the reflected points: fits stay rotations
    transform = Transform(start.matrix @ base.matrix)
    residual = np.inf
    for _ in range(rounds):
        moved = transform.apply(x0)
        near, to = tree.query(moved)
        back, of = cKDTree(moved).query(y)
        residual = 0.5 * float(near.mean() + back.mean())
        if last - residual <= tolerance * residual and np.isfinite(last) and tolerance > 0:
            break
        last = residual
        source, target = np.concatenate([x0, x0[of]]), np.concatenate([y[to], y])
        weights = np.concatenate([np.full(len(x0), 1 / len(x0)), np.full(len(y), 1 / len(y))])
        transform = fit(source, target, similarity_fit=scaled, weights=weights)
    return Transform(transform.matrix @ base.matrix), residual


def centring(shape: Shape) -> Transform:
    return translation(-shape.centroid())
