"""Criteria of a distance matrix that knows its labels: does the nearest neighbour belong to the same group, do groups hold together?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shapeflow.errors import ShapeflowError


def knn_accuracy(distances: NDArray, labels: Sequence[object], k: int = 1) -> float:
    """Leave-one-out accuracy of the vote of the `k` nearest neighbours; ties go to the nearest of the tied. NaN without two labels."""
    d, labels = _checked(distances, labels)
    if len(set(labels)) < 2 or len(d) < 3:
        return float("nan")
    hits = 0
    for i, own in enumerate(labels):
        row = d[i].copy()
        row[i] = np.inf
        nearest = [labels[j] for j in np.argsort(row, kind="stable")[:k] if np.isfinite(row[j])]
        hits += bool(nearest) and max(nearest, key=lambda name: (nearest.count(name), -nearest.index(name))) == own
    return hits / len(labels)


def silhouette(distances: NDArray, labels: Sequence[object]) -> float:
    """Mean silhouette width of the labelled groups, in [−1, 1] (Rousseeuw 1987). NaN where it is not defined."""
    from sklearn.metrics import silhouette_score

    d, labels = _checked(distances, labels)
    groups = set(labels)
    if not 2 <= len(groups) <= len(labels) - 1 or not np.isfinite(d).all():
        return float("nan")
    return float(silhouette_score(d, [sorted(groups).index(name) for name in labels], metric="precomputed"))


def _checked(distances: NDArray, labels: Sequence[object]) -> tuple[NDArray[np.float64], list[str]]:
    d = np.array(distances, dtype=np.float64)
    if d.ndim != 2 or d.shape[0] != d.shape[1] or len(labels) != len(d):
        raise ShapeflowError(
            f"a labelled distance matrix is square with a label a row; received {d.shape} and {len(labels)} labels"
        )
    np.fill_diagonal(d, 0.0)
    return d, [str(name) for name in labels]
