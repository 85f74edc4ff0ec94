"""The demo's own flow: q' = Σ_j exp(−|q_i − q_j|²/σ²) p_j, p' = −∂H/∂q, by RK4, dense and in plain NumPy.

Forty lines apart from the package's operators on purpose: a cohort made by the code under test would agree with that code's mistakes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def velocity(x: NDArray, q: NDArray, p: NDArray, sigma: float) -> NDArray:
    """v(x_i) = Σ_j k(x_i, q_j) p_j, x (m, d), q and p (n, d) -> (m, d)."""
    square = ((x[:, None, :] - q[None, :, :]) ** 2).sum(axis=2) / sigma**2
    # einsum without BLAS: the same bits whatever the number of threads
    return np.einsum("ij,jd->id", np.exp(-square), p)


def _derivatives(x: NDArray, q: NDArray, p: NDArray, sigma: float) -> tuple[NDArray, NDArray, NDArray]:
    difference = q[:, None, :] - q[None, :, :]
    k = np.exp(-(difference**2).sum(axis=2) / sigma**2)
    weight = np.einsum("id,jd->ij", p, p) * k
    dp = (2.0 / sigma**2) * np.einsum("ij,ijd->id", weight, difference)
    return velocity(x, q, p, sigma), np.einsum("ij,jd->id", k, p), dp


def shoot(x: NDArray, q: NDArray, p: NDArray, sigma: float, steps: int = 20) -> NDArray:
    """Where the passive points x (m, d) are at t = 1 when q (n, d) leaves with momenta p (n, d)."""
    h = 1.0 / steps
    for _ in range(steps):
        k1 = _derivatives(x, q, p, sigma)
        k2 = _derivatives(*_moved((x, q, p), k1, 0.5 * h), sigma)
        k3 = _derivatives(*_moved((x, q, p), k2, 0.5 * h), sigma)
        k4 = _derivatives(*_moved((x, q, p), k3, h), sigma)
        x, q, p = (
            s + h / 6.0 * (a + 2.0 * b + 2.0 * c + d) for s, a, b, c, d in zip((x, q, p), k1, k2, k3, k4, strict=True)
        )
    return x


State = tuple[NDArray, NDArray, NDArray]


def _moved(state: State, rate: State, h: float) -> State:
    x, q, p = (s + h * k for s, k in zip(state, rate, strict=True))
    return x, q, p
