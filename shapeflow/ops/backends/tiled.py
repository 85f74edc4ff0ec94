"""The operator family in plain torch, tiled in both directions: memory stays O(N + M), no compiler is needed.

The oracle's fast sibling. A tile of rows meets a tile of columns in a few dense operations that fit in cache; the difference form of r² keeps
all digits for points far from the origin.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from shapeflow.ops.problem import Problem

ROWS, COLUMNS = 256, 1024  # a float32 tile is 1 MiB: a handful of them share the second-level cache


def _tiles(problem: Problem) -> Iterator[tuple[slice, slice, float]]:
    widths = problem.sigma.tolist()
    for rows, columns, sigma in zip(problem.rows.slices(), problem.columns.slices(), widths, strict=True):
        for i in range(rows.start, rows.stop, ROWS):
            for j in range(columns.start, columns.stop, COLUMNS):
                yield slice(i, min(i + ROWS, rows.stop)), slice(j, min(j + COLUMNS, columns.stop)), sigma


def _differences(x: Tensor, y: Tensor) -> Tensor:
    """(d, n, m) coordinate differences: one contiguous plane a coordinate."""
    return x.T[:, :, None] - y.T[:, None, :]


def product(x: Tensor, y: Tensor, b: Tensor, problem: Problem) -> Tensor:
    out = b.new_zeros(x.shape[0], b.shape[1])
    for i, j, sigma in _tiles(problem):
        s = _differences(x[i], y[j]).square().sum(0) / sigma**2
        out[i] += problem.radial.value(s) @ b[j]
    return out


def gradient(a: Tensor, x: Tensor, y: Tensor, b: Tensor, problem: Problem) -> Tensor:
    out = torch.zeros_like(x)
    for i, j, sigma in _tiles(problem):
        difference = _differences(x[i], y[j])
        s = difference.square().sum(0) / sigma**2
        weight = (a[i] @ b[j].T) * problem.radial.slope(s) * (2 / sigma**2)
        out[i] += (weight * difference).sum(2).T
    return out


def fused(a: Tensor, x: Tensor, y: Tensor, b: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    v, g = b.new_zeros(x.shape[0], b.shape[1]), torch.zeros_like(x)
    for i, j, sigma in _tiles(problem):
        difference = _differences(x[i], y[j])
        s = difference.square().sum(0) / sigma**2
        v[i] += problem.radial.value(s) @ b[j]
        weight = (a[i] @ b[j].T) * problem.radial.slope(s) * (2 / sigma**2)
        g[i] += (weight * difference).sum(2).T
    return v, g


def tangent(
    x: Tensor,
    dx: Tensor | None,
    a: Tensor,
    da: Tensor | None,
    y: Tensor,
    dy: Tensor | None,
    b: Tensor,
    db: Tensor | None,
    problem: Problem,
) -> tuple[Tensor, Tensor]:
    """Per pair, with D = x_i − y_j, δ = ⟨ẋ_i − ẏ_j, D⟩ and c = 2/σ²:

    v̇_i = Σ_j f ḃ_j + f' c δ b_j
    ġ_i = Σ_j (⟨ȧ_i, b_j⟩ + ⟨a_i, ḃ_j⟩) f' c D + ⟨a_i, b_j⟩ [f' c (ẋ_i − ẏ_j) + f'' c² δ D]
    """
    dx, da = (torch.zeros_like(p) if t is None else t for p, t in ((x, dx), (a, da)))
    dy, db = (torch.zeros_like(p) if t is None else t for p, t in ((y, dy), (b, db)))
    v, g = torch.zeros_like(a), torch.zeros_like(x)
    for i, j, sigma in _tiles(problem):
        c = 2 / sigma**2
        difference, motion = _differences(x[i], y[j]), _differences(dx[i], dy[j])
        s = difference.square().sum(0) / sigma**2
        delta = (motion * difference).sum(0)
        slope, curvature = c * problem.radial.slope(s), c**2 * problem.radial.curvature(s)
        v[i] += problem.radial.value(s) @ db[j] + (slope * delta) @ b[j]
        along = (da[i] @ b[j].T + a[i] @ db[j].T) * slope
        weight = a[i] @ b[j].T
        g[i] += ((along + weight * curvature * delta) * difference + weight * slope * motion).sum(2).T
    return v, g


def logsumexp(x: Tensor, y: Tensor, h: Tensor, problem: Problem) -> Tensor:
    """l_i = log Σ_j exp(h_j − |x_i − y_j|²/σ²)."""
    out = x.new_full((x.shape[0],), -torch.inf)
    for i, j, t in _exponents(x, y, problem):
        out[i] = torch.logaddexp(out[i], (t + h[j]).logsumexp(1))
    return out


def softmax_product(u: Tensor, x: Tensor, y: Tensor, h: Tensor, b: Tensor, problem: Problem) -> Tensor:
    """v_i = Σ_j exp(u_i + h_j − |x_i − y_j|²/σ²) b_j."""
    out = b.new_zeros(x.shape[0], b.shape[1])
    for i, j, t in _exponents(x, y, problem):
        out[i] += (t + u[i, None] + h[None, j]).exp() @ b[j]
    return out


def _exponents(x: Tensor, y: Tensor, problem: Problem) -> Iterator[tuple[slice, slice, Tensor]]:
    """Tiles of −|x_i − y_j|²/σ², with the rows and columns they belong to."""
    for i, j, sigma in _tiles(problem):
        yield i, j, -(_differences(x[i], y[j]) / sigma).square().sum(0)
