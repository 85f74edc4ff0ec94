"""Log-sum-exp and soft-max products of Gaussian interactions on the CPU (kernels/lse.cpp).

logsumexp        l_i = log Σ_j exp(h_j − |x_i − y_j|²/σ²)
softmax_product  v_i = Σ_j exp(u_i + h_j − |x_i − y_j|²/σ²) b_j
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_int, c_void_p
from functools import cache

import torch
from torch import Tensor

from shapeflow.errors import BackendError
from shapeflow.ops.backends.native_call import REAL, SLICE, at, plan_of, pool
from shapeflow.ops.compile import host
from shapeflow.ops.problem import Problem


def logsumexp(x: Tensor, y: Tensor, h: Tensor, problem: Problem) -> Tensor:
    """(N,); −∞ for a row without columns, or whose columns all have h = −∞."""
    out = x.new_empty(x.shape[0])
    _call(0, 1, x, None, y, h, None, out, problem)
    return out


def softmax_product(u: Tensor, x: Tensor, y: Tensor, h: Tensor, b: Tensor, problem: Problem) -> Tensor:
    """(N, e)."""
    parts = []
    for begin in range(0, b.shape[1], SLICE):
        features = b[:, begin : begin + SLICE].contiguous()
        parts.append(b.new_empty(x.shape[0], features.shape[1]))
        _call(1, features.shape[1], x, u, y, h, features, parts[-1], problem)
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1) if parts else b.new_empty(x.shape[0], 0)


@cache
def _function(which: int, dtype: torch.dtype, d: int, e: int) -> Callable[..., int]:
    macros = {"SF_PASS": str(which), "SF_REAL": REAL[dtype], "SF_D": str(d), "SF_E": str(e)}
    function = host.library("lse.cpp", macros).shapeflow_lse
    function.argtypes = (c_void_p,) * 8 + (c_int, c_void_p)
    function.restype = c_int
    return function


def _call(
    which: int,
    e: int,
    x: Tensor,
    u: Tensor | None,
    y: Tensor,
    h: Tensor,
    b: Tensor | None,
    out: Tensor,
    problem: Problem,
) -> None:
    status = _function(which, x.dtype, x.shape[1], e)(
        ctypes.byref(plan_of(problem)), problem.sigma.data_ptr(), x.data_ptr(), at(u), y.data_ptr(), h.data_ptr(), at(b), out.data_ptr(),
        torch.get_num_threads(), pool(),
    )  # fmt: skip
    if status:
        raise BackendError(
            f"out of memory in a log-sum-exp product of {x.shape[0]} rows in {problem.rows.count} problems"
        )
