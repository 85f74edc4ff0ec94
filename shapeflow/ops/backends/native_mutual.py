"""Sums of points among themselves whose pairing is symmetric, ⟨a_i, b_j⟩ = ⟨a_j, b_i⟩, on the CPU: each pair is met once (kernels/mutual.cpp)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_int, c_void_p
from functools import cache

import torch
from torch import Tensor

from shapeflow.errors import BackendError
from shapeflow.ops.backends import nearby
from shapeflow.ops.backends.native_call import REAL, at, parallel, plan_of
from shapeflow.ops.compile import host
from shapeflow.ops.problem import Problem

LARGEST = 2048  # points of a problem: what its parts have summed stays in the second cache
MOST = 32  # features: a pairing cannot be cut into slices, each of which would not be symmetric


def suits(op: str, x: Tensor, b: Tensor, problem: Problem) -> bool:
    """Whether these sums (`gradient` or `tangent`) are taken here: few points and features, and no pairs that are better skipped."""
    few = x.numel() > 0 and max(problem.rows.sizes) <= LARGEST and 0 < b.shape[1] <= MOST
    return few and problem.sigma.device.type == "cpu" and nearby.order(op, x, x, problem) is None


def gradient(a: Tensor, x: Tensor, b: Tensor, problem: Problem) -> Tensor:
    """Σ_j ⟨a_i, b_j⟩ ∇₁k(x_i, x_j), (N, d)."""
    g = torch.empty_like(x)
    _run("gradient", problem, x, None, a, b, None, g)
    return g


def tangent(x: Tensor, dx: Tensor, a: Tensor, b: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """The derivatives of Σ_j k(x_i, x_j) b_j (N, e) and of that gradient (N, d) as the points move by dx."""
    v, g = torch.empty_like(b), torch.empty_like(x)
    _run("tangent", problem, x, dx, a, b, v, g)
    return v, g


def _run(
    op: str, problem: Problem, x: Tensor, dx: Tensor | None, a: Tensor, b: Tensor, v: Tensor | None, g: Tensor
) -> None:
    names = tuple(t.name for t in problem.radial.terms)
    status = _function(op, names, x.dtype, x.shape[1], b.shape[1])(
        ctypes.byref(plan_of(problem)), problem.sigma.data_ptr(), x.data_ptr(), at(dx), a.data_ptr(), b.data_ptr(), at(v), g.data_ptr(),
        torch.get_num_threads(), parallel(),
    )  # fmt: skip
    if status:
        raise BackendError(f"out of memory in the sums of {x.shape[0]} points in {problem.rows.count} problems")


@cache
def _function(op: str, names: tuple[str, ...], dtype: torch.dtype, d: int, e: int) -> Callable[..., int]:
    macros = {
        "SF_OP": op.upper(), "SF_TERMS": ",".join(n.upper() for n in names), "SF_REAL": REAL[dtype], "SF_D": str(d), "SF_E": str(e),
    }  # fmt: skip
    function = host.library("mutual.cpp", macros).shapeflow_mutual
    function.argtypes = (c_void_p,) * 8 + (c_int, c_void_p)
    return function
