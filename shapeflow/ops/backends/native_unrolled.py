"""The field of a metric normalized by a number of steps on the CPU, and its derivative, in one compiled call a batch (kernels/unrolled.cpp)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_int, c_void_p
from functools import cache

import torch
from torch import Tensor

from shapeflow.errors import BackendError
from shapeflow.ops.backends.native_call import REAL, plan_of, pool
from shapeflow.ops.compile import host
from shapeflow.ops.problem import Problem

MOST = 32  # features of the largest sum, which stay in registers


def suits(d: int, steps: int) -> bool:
    """Whether there are few enough steps."""
    return 2 * d + 4 * steps - 2 <= MOST


def value(x: Tensor, masses: Tensor, p: Tensor, problem: Problem, steps: int) -> tuple[Tensor, ...]:
    """λ (N,), v (N, d), the sums s and K c (N, T) of the steps, the features (a, b) of g = ∂H/∂q (N, d + 2T), and g (N, d)."""
    (n, d), e = x.shape, x.shape[1] + 2 * steps
    out = tuple(x.new_empty(shape) for shape in ((n,), (n, d), (n, steps), (n, steps), (n, e), (n, e), (n, d)))
    _call(0, problem, (x, masses, p), steps, out)
    return out


def rates(
    x: Tensor, masses: Tensor, p: Tensor, h: Tensor, V: Tensor, kept: Sequence[Tensor], problem: Problem, steps: int
) -> tuple[Tensor, Tensor]:
    """v̇ and ġ along (q̇ = h, ṗ = V), the derivatives of v and g; `kept` are (λ, v, s, K c, a, b) of `value`."""
    out = torch.empty_like(x), torch.empty_like(x)
    _call(1, problem, (x, masses, p, h, V, *kept), steps, out)
    return out


def _call(way: int, problem: Problem, given: Sequence[Tensor], steps: int, out: Sequence[Tensor]) -> None:
    x = given[0]
    function = _functions(x.dtype, x.shape[1], steps, tuple(t.name for t in problem.radial.terms))[way]
    status = function(
        ctypes.byref(plan_of(problem)), problem.sigma.data_ptr(), *(t.data_ptr() for t in given), *(t.data_ptr() for t in out),
        torch.get_num_threads(), pool(),
    )  # fmt: skip
    if status:
        raise BackendError(
            f"out of memory while scaling {problem.rows.count} problems of up to {problem.rows.largest} points"
        )


@cache
def _functions(dtype: torch.dtype, d: int, steps: int, names: tuple[str, ...]) -> tuple[Callable[..., int], ...]:
    macros = {
        "SF_REAL": REAL[dtype],
        "SF_D": str(d),
        "SF_STEPS": str(steps),
        "SF_TERMS": ",".join(n.upper() for n in names),
    }
    library, p = host.library("unrolled.cpp", macros), c_void_p
    value, rates = library.shapeflow_unrolled_value, library.shapeflow_unrolled_rates
    value.argtypes = (*(p,) * 12, c_int, p)
    rates.argtypes = (*(p,) * 15, c_int, p)
    return value, rates
