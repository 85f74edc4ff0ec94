"""The field of a metric normalized by a number of steps on the CPU, but for its gradient sums, in one compiled call a batch (kernels/unrolled.cpp)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_int, c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor

from shapeflow.errors import BackendError
from shapeflow.ops.backends.native_call import REAL, plan_of, pool
from shapeflow.ops.compile import host
from shapeflow.ops.problem import Problem


def value(x: Tensor, masses: Tensor, p: Tensor, problem: Problem, steps: int) -> tuple[Tensor, ...]:
    """λ (N,), v (N, d), the sums s and K c (N, T) of the steps, and the features (a, b) of ∂H/∂q (N, d + 2T)."""
    (n, d), e = x.shape, x.shape[1] + 2 * steps
    out = tuple(x.new_empty(shape) for shape in ((n,), (n, d), (n, steps), (n, steps), (n, e), (n, e)))
    _call(0, problem, (x, masses, p), steps, out)
    return out


def rates(
    x: Tensor, masses: Tensor, p: Tensor, V: Tensor, kept: Sequence[Tensor], moved: Tensor, problem: Problem, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """v̇ and [ȧ, a], [b, ḃ] (N, 2d + 4T − 2), what the derivative of ∂H/∂q sums; `kept` are (λ, v, s, K c, b) of `value`."""
    (n, d), f = x.shape, 2 * x.shape[1] + 4 * steps - 2
    out = x.new_empty(n, d), x.new_empty(n, f), x.new_empty(n, f)
    _call(1, problem, (x, masses, p, V, *kept, moved), steps, out)
    return out


def _call(way: int, problem: Problem, given: Sequence[Tensor], steps: int, out: Sequence[Tensor]) -> None:
    x = given[0]
    function = _functions(x.dtype, x.shape[1], tuple(t.name for t in problem.radial.terms))[way]
    status = function(
        ctypes.byref(plan_of(problem)), problem.sigma.data_ptr(), *(t.data_ptr() for t in given), steps, *(t.data_ptr() for t in out),
        torch.get_num_threads(), pool(),
    )  # fmt: skip
    if status:
        raise BackendError(
            f"out of memory while scaling {problem.rows.count} problems of up to {problem.rows.largest} points"
        )


@cache
def _functions(dtype: torch.dtype, d: int, names: tuple[str, ...]) -> tuple[Callable[..., int], Callable[..., int]]:
    macros = {"SF_REAL": REAL[dtype], "SF_D": str(d), "SF_TERMS": ",".join(n.upper() for n in names)}
    library, p = host.library("unrolled.cpp", macros), c_void_p
    value, rates = library.shapeflow_unrolled_value, library.shapeflow_unrolled_rates
    value.argtypes = (*(p,) * 5, c_int64, *(p,) * 6, c_int, p)
    rates.argtypes = (*(p,) * 12, c_int64, *(p,) * 3, c_int, p)
    return value, rates
