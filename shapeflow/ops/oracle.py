"""The operator family written as one reads it: dense, plain torch, any order of derivative by autograd.

Every fast backend is tested against these lines in float64. Memory is O(N·M).
"""

from __future__ import annotations

import torch
from torch import Tensor

from shapeflow.ops.problem import Problem


def _blocks(problem: Problem):
    for b, (rows, columns) in enumerate(zip(problem.rows.slices(), problem.columns.slices(), strict=True)):
        yield rows, columns, problem.sigma[b]


def product(x: Tensor, y: Tensor, b: Tensor, problem: Problem) -> Tensor:
    """v_i = Σ_j k(x_i, y_j) b_j."""
    out = []
    for rows, columns, sigma in _blocks(problem):
        s = ((x[rows, None, :] - y[None, columns, :]) / sigma).square().sum(-1)  # (n, m)
        out.append(problem.radial.value(s) @ b[columns])
    return torch.cat(out)


def gradient(a: Tensor, x: Tensor, y: Tensor, b: Tensor, problem: Problem) -> Tensor:
    """g_i = Σ_j ⟨a_i, b_j⟩ ∇₁k(x_i, y_j), with ∇₁k = f'(s) · 2 (x_i − y_j)/σ²."""
    out = []
    for rows, columns, sigma in _blocks(problem):
        difference = x[rows, None, :] - y[None, columns, :]  # (n, m, d)
        s = (difference / sigma).square().sum(-1)
        weight = (a[rows] @ b[columns].T) * problem.radial.slope(s) * 2 / sigma**2
        out.append((weight[..., None] * difference).sum(1))
    return torch.cat(out)


def fused(a: Tensor, x: Tensor, y: Tensor, b: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Both sums."""
    return product(x, y, b, problem), gradient(a, x, y, b, problem)


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
    """The derivative of `fused` along (dx, da, dy, db): by definition a Jacobian–vector product."""
    points = (a, x, y, b)
    along = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(points, (da, dx, dy, db), strict=True))
    return torch.func.jvp(lambda a, x, y, b: fused(a, x, y, b, problem), points, along)[1]
