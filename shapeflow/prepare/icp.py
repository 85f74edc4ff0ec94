"""Alignment without landmarks: principal axes, then closest points (Besl and McKay 1992), both ways.

Principal axes are known up to signs and, when two spreads are close, up to their order: all 24 rotations that permute and turn the axes are
tried briefly, the best few to the end. The 24 improper ones are tried as well, only to *report* that a mirrored subject would fit better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations, product
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from shapeflow.errors import MeshError
from shapeflow.io.isolated import Limits, run_each
from shapeflow.prepare.procrustes import fit
from shapeflow.prepare.transform import Transform, similarity
from shapeflow.shape import Shape


class Fit(NamedTuple):
    transform: Transform
    residual: float  # mean two-way distance between nearest vertices after the fit, mesh units
    mirrored_residual: float  # the same when the moving shape is reflected first


_SAMPLE = 500  # points of a side: enough for a pose
_BRIEF = 120  # points that a candidate rotation is first tried with
_FINISH = 3  # candidate rotations that are followed to convergence


def sample(shape: Shape) -> np.ndarray:
    """(n, d) evenly spread vertices, farthest-point order: every prefix is evenly spread too."""
    from shapeflow.prepare.resample import farthest_points

    return shape.points[farthest_points(shape.points, _SAMPLE, ordered=True)]


def align(moving: np.ndarray, fixed: np.ndarray, *, similarity_fit: bool = False, check_mirror: bool = True) -> Fit:
    """The rotation and translation (and factor) that take the points `moving (n, d)` onto `fixed (m, d)`; both from `sample`."""
    tree, brief = cKDTree(fixed), cKDTree(fixed[:_BRIEF])
    best = {}
    for proper in (True, False) if check_mirror else (True,):
        tried = [_iterate(moving[:_BRIEF], fixed[:_BRIEF], brief, s, 5) for s in _starts(moving, fixed, proper)]
        order = sorted(range(len(tried)), key=lambda i: (tried[i][1], i))
        ends = [_iterate(moving, fixed, tree, tried[i][0], 100, 1e-6) for i in order[: _FINISH if proper else 2]]
        best[proper] = min(ends, key=lambda r: r[1])
    transform, residual = best[True]
    if similarity_fit:
        transform, residual = _iterate(moving, fixed, tree, transform, 100, 1e-6, scaled=True)
    return Fit(transform, residual, best[False][1] if check_mirror else float("nan"))


def align_each(
    samples: Sequence[np.ndarray],
    index: int,
    scaled: bool,
    check_mirror: bool,
    limits: Limits,
    tick: Callable[..., object],
) -> list[Fit]:
    """Every sample onto that of the reference, in as many processes as the limits allow."""
    fixed = samples[index].tolist()
    calls = [{"moving": x.tolist(), "fixed": fixed, "scaled": scaled, "check_mirror": check_mirror} for x in samples]
    fits: list[Fit | None] = [None] * len(calls)
    for i, outcome in run_each("shapeflow.prepare.icp:align_lists", calls, limits):
        if outcome.error is not None:
            raise MeshError(f"alignment by closest points: subject {i + 1} {outcome.error}")
        fits[i] = Fit(Transform(np.array(outcome.value[0])), outcome.value[1], outcome.value[2])
        tick()
    return [f for f in fits if f is not None]


def align_lists(moving: list, fixed: list, scaled: bool, check_mirror: bool) -> tuple[list, float, float]:
    """`align` on what travels between processes."""
    found = align(np.array(moving), np.array(fixed), similarity_fit=scaled, check_mirror=check_mirror)
    return found.transform.matrix.tolist(), found.residual, found.mirrored_residual


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
    x: np.ndarray,
    y: np.ndarray,
    tree: cKDTree,
    start: Transform,
    rounds: int,
    tolerance: float = 0.0,
    *,
    scaled: bool = False,
) -> tuple[Transform, float]:
    """Closest points both ways: x to its nearest y, and every y to its nearest x, fitted together so that neither side may shrink away."""
    last = np.inf
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
