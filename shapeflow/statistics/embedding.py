"""A distance matrix seen as points and as a tree.

    Gower's matrix     G = −½ J (d²) J,   J = 1 − 11ᵀ/N,   whose entries are inner products when d is Euclidean
    classical scaling  G = U diag(l) Uᵀ,  coordinates U √l over the largest l (Torgerson 1952; the same as principal coordinates)

Geodesic distances between shapes are not Euclidean: some l are negative. Their share is reported, not hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from shapeflow.errors import ShapeflowError
from shapeflow.statistics.vectors import centred


@dataclass(frozen=True)
class Scaling:
    """`coordinates` (N, k); `explained` (k,) shares of the positive eigenvalues; `negative` share of |eigenvalues| below zero."""

    coordinates: NDArray[np.float64]
    explained: NDArray[np.float64]
    negative: float


def gower(distances: NDArray) -> NDArray[np.float64]:
    """G (N, N) of symmetric distances (N, N)."""
    return -0.5 * centred(checked_distances(distances) ** 2)


def classical_scaling(distances: NDArray, components: int = 2) -> Scaling:
    """Coordinates whose Euclidean distances come nearest to `distances`; each axis points so that its largest entry is positive."""
    values, vectors = np.linalg.eigh(gower(distances))
    order = np.argsort(values)[::-1][:components]
    largest = np.clip(values[order], 0.0, None)
    coordinates = vectors[:, order] * np.sqrt(largest)
    signs = np.sign(coordinates[np.argmax(np.abs(coordinates), axis=0), np.arange(coordinates.shape[1])])
    positive, total = np.clip(values, 0.0, None).sum(), np.abs(values).sum()
    missing = components - coordinates.shape[1]
    return Scaling(
        np.pad(coordinates * np.where(signs == 0, 1.0, signs), ((0, 0), (0, missing))),
        np.pad(largest / positive if positive > 0 else largest, (0, missing)),
        float(-np.clip(values, None, 0.0).sum() / total) if total > 0 else 0.0,
    )


def tree(distances: NDArray, method: str = "average") -> NDArray[np.float64]:
    """Hierarchical clustering in SciPy's linkage format, leaves ordered so that neighbours are near."""
    d = checked_distances(distances)
    condensed = squareform(d, checks=False)
    return optimal_leaf_ordering(linkage(condensed, method), condensed)


def cluster_order(distances: NDArray) -> NDArray[np.int64]:
    """Indices that put near shapes beside each other; missing distances count as the largest known one."""
    d = np.array(distances, dtype=np.float64)
    if len(d) < 3:
        return np.arange(len(d))
    known = d[np.isfinite(d)]
    return np.asarray(
        leaves_list(tree(np.where(np.isfinite(d), d, known.max() if len(known) else 1.0))), dtype=np.int64
    )


def checked_distances(distances: NDArray) -> NDArray[np.float64]:
    d = np.asarray(distances, dtype=np.float64)
    if d.ndim != 2 or d.shape[0] != d.shape[1]:
        raise ShapeflowError(f"a distance matrix is square; received shape {d.shape}")
    if not np.isfinite(d).all():
        raise ShapeflowError(
            f"{int((~np.isfinite(d)).sum())} entries of the distance matrix are missing: leave out the subjects whose matchings failed"
        )
    if not np.allclose(d, d.T, rtol=1e-9, atol=1e-12) or np.abs(np.diag(d)).max(initial=0.0) > 0:
        raise ShapeflowError(
            "a distance matrix is symmetric with zeros on its diagonal; average the two directions first (distance_matrix)"
        )
    return 0.5 * (d + d.T)
