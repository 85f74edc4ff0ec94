"""Linear algebra on Gram matrices and momenta, and the distance of corresponding shapes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapeflow.shape import Shape


def centred(gram: NDArray) -> NDArray[np.float64]:
    """Gram matrix of the vectors less their mean: J G J."""
    g = np.asarray(gram, dtype=np.float64)
    g = g - g.mean(axis=0, keepdims=True)
    return g - g.mean(axis=1, keepdims=True)


def squared_distances(gram: NDArray) -> NDArray[np.float64]:
    """|p_i − p_j|² from inner products."""
    d = np.diag(gram)
    return np.clip(d[:, None] + d[None, :] - 2.0 * np.asarray(gram), 0.0, None)


def combine(weights: NDArray, momenta: NDArray) -> NDArray[np.float64]:
    """Σ_s weights[k, s] p_s: (k, n, d)."""
    return np.einsum("ks,snd->knd", np.atleast_2d(weights), momenta)


def rms_distance(a: Shape, b: Shape, masses: NDArray) -> float:
    """Root of the mass-weighted mean squared distance of corresponding vertices, mesh units."""
    return float(np.sqrt((masses * ((a.points - b.points) ** 2).sum(axis=1)).sum() / masses.sum()))
