"""The distance matrix of a run: d(i, j) = ½ (forth + back), where forth = sqrt(2H) of matching i to j and back of j to i.

The exact geodesic distance is symmetric; a matching is inexact and its two ends play different parts, so the asymmetry tells how far the
solutions are from geodesics between the shapes themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapeflow.errors import ShapeflowError
from shapeflow.tables.schema import DISTANCES, conform, failed


@dataclass(frozen=True)
class DistanceMatrix:
    """`values` (N, N) symmetric, zero on the diagonal, NaN where no direction succeeded; `asymmetry` (N, N), NaN where one is missing."""

    names: tuple[str, ...]
    values: NDArray[np.float64]
    asymmetry: NDArray[np.float64]

    @property
    def complete(self) -> bool:
        return bool(np.isfinite(self.values).all())

    def restricted(self, names: tuple[str, ...] | list[str]) -> DistanceMatrix:
        """The matrix of some of the subjects, in the given order."""
        index = [self.names.index(name) for name in names]
        return DistanceMatrix(tuple(names), self.values[np.ix_(index, index)], self.asymmetry[np.ix_(index, index)])


def distance_matrix(rows: pd.DataFrame) -> DistanceMatrix:
    """From the matching rows of one run. A failed row counts as missing; one direction stands in for a missing other."""
    if "run" in rows.columns and rows["run"].nunique() > 1:
        raise ShapeflowError(
            f"a distance matrix belongs to one run; received rows of {', '.join(map(str, rows['run'].unique()))}"
        )
    names = tuple(sorted({*rows["source"].astype(str), *rows["target"].astype(str)}))
    place = {name: i for i, name in enumerate(names)}
    directed = np.full((len(names), len(names)), np.nan)
    good = rows[~failed(rows)]
    if good.duplicated(["source", "target"]).any():
        twice = good[good.duplicated(["source", "target"])].iloc[0]
        raise ShapeflowError(
            f"{twice['source']} to {twice['target']} is matched twice in run {twice.get('run', '')}: the shards overlap"
        )
    for source, target, value in zip(
        good["source"].astype(str), good["target"].astype(str), good["distance"].astype(float), strict=True
    ):
        directed[place[source], place[target]] = value
    return from_directed(names, directed)


def from_directed(names: tuple[str, ...], directed: NDArray[np.float64]) -> DistanceMatrix:
    """From distances (N, N) of source (row) to target (column), NaN where missing."""
    both = np.stack([directed, directed.T])
    known = np.isfinite(both).sum(axis=0)
    total = np.where(np.isfinite(both), both, 0.0).sum(axis=0)
    values = np.where(known > 0, total / np.maximum(known, 1), np.nan)
    asymmetry = np.where(known == 2, np.abs(directed - directed.T) / np.where(total > 0, total, 1.0), np.nan)
    np.fill_diagonal(values, 0.0)
    np.fill_diagonal(asymmetry, 0.0)
    return DistanceMatrix(names, values, asymmetry)


def distances_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The same as rows: every unordered pair once, in order of names."""
    matrix = distance_matrix(rows)
    i, j = np.triu_indices(len(matrix.names), k=1)
    asymmetry = matrix.asymmetry[i, j]
    directions = np.where(np.isfinite(asymmetry), 2, np.isfinite(matrix.values[i, j]).astype(int))
    frame = pd.DataFrame(
        {
            "first": [matrix.names[k] for k in i],
            "second": [matrix.names[k] for k in j],
            "distance": matrix.values[i, j],
            "asymmetry": asymmetry,
            "directions": directions,
        }
    )
    return conform(frame, DISTANCES, where="distances table")
