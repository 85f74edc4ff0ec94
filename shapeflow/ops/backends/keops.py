"""The operator family through KeOps' LazyTensors: one reduction a result, compiled by KeOps at its first use.

Ragged batches are block-diagonal reductions (KeOps' `ranges`). The formulas of `Radial` run on LazyTensors as they stand.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from shapeflow.errors import BackendError
from shapeflow.ops.problem import Problem


def _lazy() -> Any:
    os.environ.setdefault("PYKEOPS_VERBOSE", "0")
    try:
        from pykeops.torch import LazyTensor
    except ImportError as error:
        raise BackendError(
            f"the KeOps backend needs pykeops and a C++ compiler ({error}): install them, or choose backend=torch"
        ) from error
    return LazyTensor


def _ranges(problem: Problem, device: torch.device) -> tuple[Tensor, ...] | None:
    """Rows of a block see the columns of the same block: KeOps' description of a block-diagonal reduction."""
    if problem.rows.count == 1:
        return None

    def spans(layout: Any) -> Tensor:
        return torch.tensor([[s.start, s.stop] for s in layout.slices()], dtype=torch.int32, device=device)

    i, j = spans(problem.rows), spans(problem.columns)
    upto = torch.arange(1, problem.rows.count + 1, dtype=torch.int32, device=device)
    return (i, upto, j, j, upto, i)


class _Pairs:
    """The symbolic pairs (i, j) of a problem: differences, s = r²/σ² and features, ready to be reduced over j."""

    def __init__(self, x: Tensor, y: Tensor, problem: Problem) -> None:
        self.lazy, self.problem = _lazy(), problem
        self.ranges = _ranges(problem, x.device)
        self.inverse = self.row(problem.rows.spread(problem.sigma).pow(-2)[:, None])
        self.difference = self.row(x) - self.column(y)
        self.s = self.difference.sqnorm2() * self.inverse

    def row(self, values: Tensor) -> Any:
        return self.lazy(values[:, None, :].contiguous())

    def column(self, values: Tensor) -> Any:
        return self.lazy(values[None, :, :].contiguous())

    def reduce(self, formula: Any) -> Tensor:
        formula.ranges = self.ranges
        return formula.sum(1)


def product(x: Tensor, y: Tensor, b: Tensor, problem: Problem) -> Tensor:
    if 0 in (x.shape[0], y.shape[0]):
        return b.new_zeros(x.shape[0], b.shape[1])
    pairs = _Pairs(x, y, problem)
    return pairs.reduce(problem.radial.value(pairs.s) * pairs.column(b))


def gradient(a: Tensor, x: Tensor, y: Tensor, b: Tensor, problem: Problem) -> Tensor:
    if 0 in (x.shape[0], y.shape[0]):
        return torch.zeros_like(x)
    pairs = _Pairs(x, y, problem)
    weight = (pairs.row(a) | pairs.column(b)) * problem.radial.slope(pairs.s) * (2 * pairs.inverse)
    return pairs.reduce(weight * pairs.difference)


def fused(a: Tensor, x: Tensor, y: Tensor, b: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Two reductions: KeOps sums one formula at a time."""
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
    if 0 in (x.shape[0], y.shape[0]):
        return torch.zeros_like(a), torch.zeros_like(x)
    dx, da = (torch.zeros_like(p) if t is None else t for p, t in ((x, dx), (a, da)))
    dy, db = (torch.zeros_like(p) if t is None else t for p, t in ((y, dy), (b, db)))
    pairs, radial = _Pairs(x, y, problem), problem.radial
    ai, bj = pairs.row(a), pairs.column(b)
    motion, c = pairs.row(dx) - pairs.column(dy), 2 * pairs.inverse
    delta, slope = (motion | pairs.difference), c * radial.slope(pairs.s)
    v = pairs.reduce(radial.value(pairs.s) * pairs.column(db) + (slope * delta) * bj)
    along = ((pairs.row(da) | bj) + (ai | pairs.column(db))) * slope
    bend = (ai | bj) * c * c * radial.curvature(pairs.s) * delta
    g = pairs.reduce((along + bend) * pairs.difference + ((ai | bj) * slope) * motion)
    return v, g


def logsumexp(x: Tensor, y: Tensor, h: Tensor, problem: Problem) -> Tensor:
    if 0 in (x.shape[0], y.shape[0]):
        return x.new_full((x.shape[0],), -torch.inf)
    pairs = _Pairs(x, y, problem)
    exponents = pairs.column(h[:, None]) - pairs.s
    exponents.ranges = pairs.ranges
    return exponents.logsumexp(1)[:, 0]


def softmax_product(u: Tensor, x: Tensor, y: Tensor, h: Tensor, b: Tensor, problem: Problem) -> Tensor:
    if 0 in (x.shape[0], y.shape[0]):
        return b.new_zeros(x.shape[0], b.shape[1])
    pairs = _Pairs(x, y, problem)
    weights = (pairs.row(u[:, None]) + pairs.column(h[:, None]) - pairs.s).exp()
    return pairs.reduce(weights * pairs.column(b))
