"""The four operators of a compiled backend, as allocations around one function.

`run(op, problem, x, dx, a, da, y, dy, b, db, v, g)` writes the results v and g; what an operator does not take or give is None.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shapeflow.ops.problem import Problem

DX, DA, DY, DB = 1, 2, 4, 8  # Mask of kernels/pair.h


def mask_of(dx: Tensor | None, da: Tensor | None, dy: Tensor | None, db: Tensor | None) -> int:
    """Which tangents are given."""
    return (dx is not None) * DX | (da is not None) * DA | (dy is not None) * DY | (db is not None) * DB


def nothing(op: str, mask: int, e: int, *results: Tensor | None) -> bool:
    """Whether the sums have no terms: then the results are zeros, and are set."""
    if e and (op != "tangent" or mask):
        return False
    for out in results:
        if out is not None:
            out.zero_()
    return True


def entries(run: Callable[..., None]) -> tuple[Callable[..., Tensor], Callable[..., Tensor], Callable, Callable]:
    """product, gradient, fused and tangent of a backend (docs/architecture.md)."""

    def product(x: Tensor, y: Tensor, b: Tensor, problem: Problem) -> Tensor:
        """v_i = Σ_j k(x_i, y_j) b_j."""
        v = b.new_empty(x.shape[0], b.shape[1])
        run("product", problem, x, None, None, None, y, None, b, None, v, None)
        return v

    def gradient(a: Tensor, x: Tensor, y: Tensor, b: Tensor, problem: Problem) -> Tensor:
        """g_i = Σ_j ⟨a_i, b_j⟩ ∇₁k(x_i, y_j)."""
        g = torch.empty_like(x)
        run("gradient", problem, x, None, a, None, y, None, b, None, None, g)
        return g

    def fused(a: Tensor, x: Tensor, y: Tensor, b: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        """Both sums, each pair's r² and f computed once."""
        v, g = torch.empty_like(a), torch.empty_like(x)
        run("fused", problem, x, None, a, None, y, None, b, None, v, g)
        return v, g

    def tangent(
        x: Tensor, dx: Tensor | None, a: Tensor, da: Tensor | None, y: Tensor, dy: Tensor | None, b: Tensor, db: Tensor | None, problem: Problem
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The directional derivative of `fused`."""
        v, g = torch.empty_like(a), torch.empty_like(x)
        run("tangent", problem, x, dx, a, da, y, dy, b, db, v, g)
        return v, g

    return product, gradient, fused, tangent
