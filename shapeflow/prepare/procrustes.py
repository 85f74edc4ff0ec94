"""Rigid and similarity fits of corresponding points, and of a whole cohort to its mean.

With weights w and centred points x (moving), y (fixed), the least-squares rotation is that of Kabsch and Umeyama:

    M = sum_i w_i y_i x_i^T = U S V^T,    R = U diag(1, .., det(U V^T)) V^T,    s = tr(S D) / sum_i w_i |x_i|^2,    t = y_bar - s R x_bar

The determinant keeps R a rotation: a reflection is never chosen. Points that are NaN on either side have weight zero.
"""

from __future__ import annotations

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.prepare.transform import Transform, similarity

FEWEST = {2: 2, 3: 3}  # points that determine a rotation


def fit(
    moving: np.ndarray, fixed: np.ndarray, *, similarity_fit: bool = False, weights: np.ndarray | None = None
) -> Transform:
    """The transform that takes `moving (n, d)` nearest to `fixed (n, d)`."""
    d = moving.shape[1]
    known = np.isfinite(moving).all(1) & np.isfinite(fixed).all(1)
    if known.sum() < FEWEST[d]:
        raise MeshError(
            f"{int(known.sum())} points are known on both sides; expected at least {FEWEST[d]} to determine a rotation in {d}-D"
        )
    x, y = moving[known], fixed[known]
    w = np.ones(len(x)) if weights is None else weights[known]
    w = w / w.sum()
    x_bar, y_bar = w @ x, w @ y
    x, y = x - x_bar, y - y_bar
    u, singular, vt = np.linalg.svd((y * w[:, None]).T @ x)
    sign = np.ones(d)
    sign[-1] = np.sign(np.linalg.det(u @ vt)) or 1.0
    rotation = (u * sign) @ vt
    spread = float(w @ (x**2).sum(1))
    scale = float((singular * sign).sum() / spread) if similarity_fit and spread > 0 else 1.0
    if not scale > 0:
        raise MeshError(
            "the points have no size to scale by, or only a reflection fits them; use prepare.similarity=false"
        )
    return similarity(rotation, scale, y_bar - scale * rotation @ x_bar)


def residual(moving: np.ndarray, fixed: np.ndarray, transform: Transform) -> float:
    """Mean distance, over the points known on both sides, after the transform."""
    distance = np.linalg.norm(transform.apply(moving) - fixed, axis=1)
    return float(np.nanmean(distance)) if np.isfinite(distance).any() else float("nan")


def pairwise_residuals(sets: list[np.ndarray], *, similarity_fit: bool = False) -> np.ndarray:
    """(N, N) mean point distances after fitting each column's points to each row's; zero diagonal."""
    n = len(sets)
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                out[i, j] = residual(sets[j], sets[i], fit(sets[j], sets[i], similarity_fit=similarity_fit))
    return out


def medoid(sets: list[np.ndarray], *, similarity_fit: bool = False) -> int:
    """Index of the set nearest to all others; of a large cohort, nearest to the mean (the same idea, at linear cost)."""
    if len(sets) <= 60:
        return int(np.argmin(pairwise_residuals(sets, similarity_fit=similarity_fit).sum(1)))
    mean, transforms = generalised(sets, start=0, similarity_fit=similarity_fit)
    return int(np.argmin([residual(x, mean, t) for x, t in zip(sets, transforms, strict=True)]))


def generalised(
    sets: list[np.ndarray], *, start: int, similarity_fit: bool = False, tolerance: float = 1e-10, max_rounds: int = 200
) -> tuple[np.ndarray, list[Transform]]:
    """Gower's generalised Procrustes: the mean and the fit of every set to it, from `sets[start]` on, in whose frame the mean stays.

    With `similarity_fit` the mean keeps the mean centroid size of the sets: without it, shrinking everything would fit best.
    """
    mean = sets[start] - np.nanmean(sets[start], axis=0)
    wanted = np.mean([_size(x) for x in sets])
    transforms: list[Transform] = []
    for _ in range(max_rounds):
        transforms = [fit(x, mean, similarity_fit=similarity_fit) for x in sets]
        stack = np.stack([t.apply(x) for t, x in zip(transforms, sets, strict=True)])
        new = np.nanmean(stack, axis=0)
        if similarity_fit:
            new = new * (wanted / _size(new))
        new = fit(new, mean).apply(new)  # the mean may not drift from the frame of the start
        moved, mean = float(np.sqrt(np.nanmean((new - mean) ** 2))), new
        if moved <= tolerance * wanted:
            break
    transforms = [fit(x, mean, similarity_fit=similarity_fit) for x in sets]
    return mean, transforms


def _size(points: np.ndarray) -> float:
    """Root mean square distance to the barycentre of the points that are known."""
    return float(np.sqrt(np.nanmean(((points - np.nanmean(points, axis=0)) ** 2).sum(1))))
