"""Sinkhorn scaling and its linear systems on the CPU, in one compiled call a batch (kernels/scaling.cpp)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from shapeflow.errors import BackendError
from shapeflow.ops.backends.native_call import REAL, parallel, plan_of
from shapeflow.ops.compile import host
from shapeflow.ops.problem import Problem

LARGEST = (
    2048  # points: a float32 matrix of 16 MiB a thread is still cheaper to read ten times than to compute ten times
)


def suits(problem: Problem) -> bool:
    """Whether every matrix of the batch is small enough."""
    return problem.sigma.device.type == "cpu" and max(problem.rows.sizes) <= LARGEST


MOST_STORED = 1 << 26  # bytes: matrices that would have left the cache by the next call are cheaper to fill again


@dataclass
class Stored:
    """The matrices of a batch, kept from one call to the next at the same points."""

    matrices: Tensor
    filled: bool = False

    @staticmethod
    def of(problem: Problem, dtype: torch.dtype) -> Stored | None:
        """Room for them, if they are few."""
        size = sum((-(-n // 16) * 16) ** 2 for n in problem.rows.sizes)  # padded to the widest vectors
        return Stored(torch.empty(size, dtype=dtype)) if size * dtype.itemsize <= MOST_STORED else None


def _matrices(stored: Stored | None) -> tuple[int | None, int]:
    """Where they are, and whether they are filled: they will be."""
    if stored is None:
        return None, 0
    before, stored.filled = stored.filled, True
    return stored.matrices.data_ptr(), int(before)


def scale(
    x: Tensor, masses: Tensor, problem: Problem, start: Tensor | None, alpha: float, beta: float, contraction: float, tolerance: float,
    rounding: float, steps: int, stored: Stored | None = None,
) -> tuple[Tensor, float]:  # fmt: skip
    """(ℓ (N,), largest residual of a problem that missed the tolerance, else 0)."""
    out = torch.empty_like(masses) if start is None else start.clone()
    left = torch.zeros(problem.rows.count, dtype=torch.float64)
    function, _, _ = _functions(x.dtype, x.shape[1], tuple(t.name for t in problem.radial.terms))
    status = function(
        ctypes.byref(plan_of(problem)), problem.sigma.data_ptr(), x.data_ptr(), masses.data_ptr(), start is None, out.data_ptr(), left.data_ptr(),
        alpha, beta, contraction, tolerance, rounding, steps, *_matrices(stored), torch.get_num_threads(), parallel(),
    )  # fmt: skip
    _check(status, problem)
    return out, float(left.max())


def solve(
    x: Tensor,
    half: Tensor,
    right: Tensor,
    problem: Problem,
    start: Tensor | None,
    tolerance: float,
    steps: int,
    stored: Stored | None = None,
) -> Tensor:
    """u (N,) with (I + HKH) u = right, H = diag(half)."""
    out = torch.empty_like(right) if start is None else start.clone()
    _, function, _ = _functions(x.dtype, x.shape[1], tuple(t.name for t in problem.radial.terms))
    status = function(
        ctypes.byref(plan_of(problem)), problem.sigma.data_ptr(), x.data_ptr(), half.data_ptr(), right.data_ptr(), start is None, out.data_ptr(),
        tolerance, steps, *_matrices(stored), torch.get_num_threads(), parallel(),
    )  # fmt: skip
    _check(status, problem)
    return out


def product(x: Tensor, b: Tensor, problem: Problem, stored: Stored) -> Tensor:
    """K b (N, e) by the stored matrices."""
    features = b.T.contiguous()
    scratch, out = (
        torch.empty_like(features[0]),
        torch.full_like(features, torch.nan),
    )  # what stays of a problem that is not finite
    _, _, function = _functions(x.dtype, x.shape[1], tuple(t.name for t in problem.radial.terms))
    status = function(
        ctypes.byref(plan_of(problem)), problem.sigma.data_ptr(), x.data_ptr(), features.data_ptr(), b.shape[1], out.data_ptr(),
        scratch.data_ptr(), *_matrices(stored), torch.get_num_threads(), parallel(),
    )  # fmt: skip
    _check(status, problem)
    return out.T.contiguous()


def _check(status: int, problem: Problem) -> None:
    if status:
        raise BackendError(
            f"out of memory while scaling {problem.rows.count} problems of up to {max(problem.rows.sizes)} points"
        )


@cache
def _functions(dtype: torch.dtype, d: int, names: tuple[str, ...]) -> tuple[Callable[..., int], ...]:
    macros = {"SF_REAL": REAL[dtype], "SF_D": str(d), "SF_TERMS": ",".join(n.upper() for n in names)}
    library = host.library("scaling.cpp", macros)
    scale, solve, apply = library.shapeflow_scale, library.shapeflow_solve, library.shapeflow_apply
    scale.argtypes = (
        (c_void_p,) * 4 + (c_int, c_void_p, c_void_p) + (c_double,) * 5 + (c_int, c_void_p, c_int, c_int, c_void_p)
    )
    solve.argtypes = (c_void_p,) * 5 + (c_int, c_void_p, c_double, c_int, c_void_p, c_int, c_int, c_void_p)
    apply.argtypes = (c_void_p,) * 4 + (c_int64, c_void_p, c_void_p, c_void_p, c_int, c_int, c_void_p)
    return scale, solve, apply
