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
from shapeflow.prepare.transform import Transform, reflection, similarity
from shapeflow.sampling import farthest_points
from shapeflow.shape import Shape


class Fit(NamedTuple):
    transform: Transform
    residual: float  # mean two-way distance between nearest vertices after the fit, mesh units
    mirrored_residual: float  # the same when the moving shape is reflected first


_DENSE = 4000  # points that a side is looked up in: their spacing is the floor of the residual
QUERY = 500  # of them, points that look up: enough for a pose
_BRIEF = 120  # points of a side that a candidate rotation is first tried with
_FINISH = 2  # candidate rotations that are followed to convergence


def sample(shape: Shape) -> np.ndarray:
    """(4000, d) points spread evenly over area or length, whatever the vertices; every prefix is spread evenly too. Deterministic.

    Additive recurrence (Roberts 2018): x_n = frac(n a) with a = (1/g, 1/g^2, ..), g the root of g^(k+1) = g + 1, is of low discrepancy in k
    dimensions. The first coordinate picks a simplex by its measure, the others a place on it.
    """
    k = shape.simplices.shape[1]
    if k == 1:
        return shape.points[farthest_points(shape.points, _DENSE)]
    root = 1.5
    for _ in range(40):
        root = (1 + root) ** (1 / (k + 1))
    u = np.arange(1, _DENSE + 1)[:, None] * root ** -np.arange(1.0, k + 1) % 1.0  # (n, k)
    share = np.cumsum(shape.measures())
    simplex = np.minimum(np.searchsorted(share, u[:, 0] * share[-1]), len(share) - 1)
    if k == 2:
        weights = np.stack([1 - u[:, 1], u[:, 1]], 1)
    else:
        r = np.sqrt(u[:, 1])
        weights = np.stack([1 - r, r * (1 - u[:, 2]), r * u[:, 2]], 1)
    return np.einsum("nk,nkd->nd", weights, shape.points[shape.simplices[simplex]])


def align(moving: np.ndarray, fixed: np.ndarray, *, similarity_fit: bool = False, check_mirror: bool = True) -> Fit:
    """The rotation and translation (and factor) that take the points `moving (n, d)` onto `fixed (m, d)`; both from `sample`."""
    x, y, brief_x, brief_y = (cKDTree(p) for p in (moving, fixed, moving[:_BRIEF], fixed[:_BRIEF]))
    best = {}
    for proper in (True, False) if check_mirror else (True,):
        tried = [_iterate(brief_x, brief_y, s, 5) for s in _starts(moving, fixed, proper)]
        order = sorted(range(len(tried)), key=lambda i: (tried[i][1], i))
        ends = [_iterate(x, y, tried[i][0], 60, 1e-5) for i in order[:_FINISH]]
        best[proper] = min(ends, key=lambda r: r[1])
    transform, residual = best[True]
    if similarity_fit:
        transform, residual = _iterate(x, y, transform, 60, 1e-5, scaled=True)
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
    x: cKDTree, y: cKDTree, start: Transform, rounds: int, tolerance: float = 0.0, *, scaled: bool = False
) -> tuple[Transform, float]:
    """Closest points both ways: x to its nearest y, and every y to its nearest x, fitted together so that neither side may shrink away."""
    transform, residual, last = start, np.inf, np.inf
    mirror = reflection() if start.reflects else Transform()
    p, q = x.data[:QUERY], y.data[:QUERY]
    weights = np.concatenate([np.full(len(p), 1 / len(p)), np.full(len(q), 1 / len(q))])
    for _ in range(rounds):
        near, to = y.query(transform.apply(p))
        back, of = x.query(transform.inverse().apply(q))  # the tree of the moving side stays where it is
        residual = 0.5 * float(near.mean() + transform.scale * back.mean())
        if last - residual <= tolerance * residual and np.isfinite(last) and tolerance > 0:
            break
        last = residual
        # a reflected start stays one: the fit is a rotation of the reflected points
        source, target = mirror.apply(np.concatenate([p, x.data[of]])), np.concatenate([y.data[to], q])
        transform = fit(source, target, similarity_fit=scaled, weights=weights).after(mirror)
    return transform, residual
