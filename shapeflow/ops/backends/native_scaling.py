"""Sinkhorn scaling and its linear systems on the CPU, in one compiled call a batch (kernels/scaling.cpp)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_double, c_int, c_void_p
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from shapeflow.errors import BackendError
from shapeflow.ops.backends.native_call import REAL, plan_of, pool
from shapeflow.ops.compile import host
from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial

# Points of a problem: a float32 matrix of 16 MiB a thread is still cheaper to read ten times than to compute ten times.
LARGEST = 2048


def suits(problem: Problem) -> bool:
    """Whether every matrix of the batch is small enough."""
    return problem.sigma.device.type == "cpu" and problem.rows.largest <= LARGEST


class Numbers(ctypes.Structure):
    """The numbers of a scaling (kernels/scaling.cpp); normalization.py explains them."""

    _fields_ = tuple((name, c_double) for name in ("alpha", "beta", "contraction", "tolerance", "rounding")) + (
        ("steps", c_int),
    )


def scale(
    x: Tensor, masses: Tensor, problem: Problem, start: Tensor | None, numbers: Sequence[float]
) -> tuple[Tensor, float]:  # fmt: skip
    """(ℓ (N,), largest residual of a problem that missed the tolerance, else 0)."""
    out = _begun(start, masses)
    left = torch.zeros(problem.rows.count, dtype=torch.float64)
    function = _functions(x.dtype, x.shape[1], problem.radial).scale
    status = function(
        ctypes.byref(plan_of(problem)), problem.sigma.data_ptr(), x.data_ptr(), masses.data_ptr(), start is None, out.data_ptr(), left.data_ptr(),
        ctypes.byref(Numbers(*numbers)), torch.get_num_threads(), pool(),
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
) -> Tensor:
    """u (N,) with (I + HKH) u = right, H = diag(half)."""
    out, function = _begun(start, right), _functions(x.dtype, x.shape[1], problem.radial).solve
    status = function(
        ctypes.byref(plan_of(problem)), problem.sigma.data_ptr(), x.data_ptr(), half.data_ptr(), right.data_ptr(), start is None, out.data_ptr(),
        tolerance, steps, torch.get_num_threads(), pool(),
    )  # fmt: skip
    _check(status, problem)
    return out


def value(
    x: Tensor, masses: Tensor, p: Tensor, problem: Problem, l_start: Tensor | None, u_start: Tensor | None, numbers: Sequence[float]
) -> tuple[tuple[Tensor, ...], float]:  # fmt: skip
    """((ℓ, u, v, a, b, g), residual left): log λ (N,), w = √μ u (N,), the velocity, the features of g = ∂H/∂q, and g itself, in one call."""
    n, d = x.shape
    out = (
        _begun(l_start, masses),
        _begun(u_start, masses),
        x.new_empty(n, d),
        x.new_empty(n, d + 2),
        x.new_empty(n, d + 2),
        x.new_empty(n, d),
    )
    left = torch.zeros(problem.rows.count, dtype=torch.float64)
    ell, u, *rest = (t.data_ptr() for t in out)
    status = _functions(x.dtype, d, problem.radial).value(
        ctypes.byref(plan_of(problem)), problem.sigma.data_ptr(), x.data_ptr(), masses.data_ptr(), p.data_ptr(), l_start is None, ell, left.data_ptr(),
        ctypes.byref(Numbers(*numbers)), u_start is None, u, *rest, torch.get_num_threads(), pool(),
    )  # fmt: skip
    _check(status, problem)
    return out, float(left.max())


def rates(
    x: Tensor, masses: Tensor, p: Tensor, h: Tensor, V: Tensor, kept: Sequence[Tensor], problem: Problem, y_start: Tensor | None,
    z_start: Tensor | None, numbers: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """(y, z, v̇, ġ) along (q̇ = h, ṗ = V): ℓ̇ = y/√μ, √μ z = ẇ, and the derivatives of v and g; `kept` are (ℓ, u, v, a, b) of `value`."""
    out = (
        _begun(y_start, masses),
        _begun(z_start, masses),
        torch.empty_like(x),
        torch.empty_like(x),
    )
    y, z, *rest = (t.data_ptr() for t in out)
    status = _functions(x.dtype, x.shape[1], problem.radial).rates(
        ctypes.byref(plan_of(problem)), problem.sigma.data_ptr(), *(t.data_ptr() for t in (x, masses, p, h, V, *kept)),
        ctypes.byref(Numbers(*numbers)), y_start is None, y, z_start is None, z, *rest, torch.get_num_threads(), pool(),
    )  # fmt: skip
    _check(status, problem)
    return out


def _begun(start: Tensor | None, like: Tensor) -> Tensor:
    """Where a solution goes, holding the guess if there is one."""
    return torch.empty_like(like) if start is None else start.clone()


def _check(status: int, problem: Problem) -> None:
    if status:
        raise BackendError(
            f"out of memory while scaling {problem.rows.count} problems of up to {problem.rows.largest} points"
        )


class _Functions(NamedTuple):
    scale: Callable[..., int]
    solve: Callable[..., int]
    value: Callable[..., int]
    rates: Callable[..., int]


@cache
def _functions(dtype: torch.dtype, d: int, radial: Radial) -> _Functions:
    names = ",".join(t.name.upper() for t in radial.terms)
    library = host.library("scaling.cpp", {"SF_REAL": REAL[dtype], "SF_D": str(d), "SF_TERMS": names})
    p, tail = c_void_p, (c_int, c_void_p)
    types = {
        "scale": (*(p,) * 4, c_int, p, p, p, *tail),
        "solve": (*(p,) * 5, c_int, p, c_double, c_int, *tail),
        "value": (*(p,) * 5, c_int, p, p, p, c_int, p, p, p, p, p, *tail),
        "rates": (*(p,) * 13, c_int, p, c_int, p, p, p, *tail),
    }
    functions = {name: getattr(library, f"shapeflow_{name}") for name in types}
    for name, arguments in types.items():
        functions[name].argtypes = arguments
    return _Functions(**functions)
