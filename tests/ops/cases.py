"""Random batches for the operators: sizes, kernels and features that a backend has to get right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shapeflow.ops import KERNELS, Radial
from shapeflow.ops.problem import Problem
from shapeflow.ragged import Ragged

SUM = "0.3*gaussian@0.5 + 2.0*cauchy@3.0"
KERNEL_NAMES = (*KERNELS, SUM)


@dataclass(frozen=True)
class Case:
    a: Tensor
    x: Tensor
    y: Tensor
    b: Tensor
    dx: Tensor
    da: Tensor
    dy: Tensor
    db: Tensor
    problem: Problem


def case(
    kernel: str = "gaussian",
    rows: tuple[int, ...] = (7, 0, 30),
    columns: tuple[int, ...] = (5, 3, 41),
    d: int = 3,
    e: int = 2,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    shift: float = 0.0,
) -> Case:
    """B problems of sizes `rows` × `columns`, σ around 1, coordinates of order one around `shift`."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    n, m = sum(rows), sum(columns)
    sigma = (0.5 + torch.rand(len(rows), generator=g, dtype=torch.float64)).to(dtype)
    problem = Problem(Radial.parse(kernel), sigma, Ragged.of_sizes(rows), Ragged.of_sizes(columns))
    return Case(
        normal(n, e),
        normal(n, d) + shift,
        normal(m, d) + shift,
        normal(m, e),
        normal(n, d),
        normal(n, e),
        normal(m, d),
        normal(m, e),
        problem,
    )
