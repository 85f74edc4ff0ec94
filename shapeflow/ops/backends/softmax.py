"""Log-sum-exp and soft-max products of Gaussian interactions, natively on the CPU (kernels/lse.cpp) and on CUDA (cuda_softmax), and in torch
tiles anywhere.

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

from shapeflow.ops.backends import cuda_softmax, native_cpu, tiled
from shapeflow.ops.compile import host
from shapeflow.ops.problem import Problem


def logsumexp(x: Tensor, y: Tensor, h: Tensor, problem: Problem, backend: str) -> Tensor:
    """(N,); −∞ for a row without columns, or whose columns all have h = −∞."""
    if backend == "native" and x.is_cuda:
        return cuda_softmax.logsumexp(x, y, h, problem)
    if backend == "native" and x.device.type == "cpu":
        out = x.new_empty(x.shape[0])
        _call(0, 1, x, None, y, h, None, out, problem)
        return out
    out = x.new_full((x.shape[0],), -torch.inf)
    for i, j, t in _exponents(x, y, problem):
        out[i] = torch.logaddexp(out[i], (t + h[j]).logsumexp(1))
    return out


def softmax_product(u: Tensor, x: Tensor, y: Tensor, h: Tensor, b: Tensor, problem: Problem, backend: str) -> Tensor:
    """(N, e)."""
    if backend == "native" and x.is_cuda:
        return cuda_softmax.softmax_product(u, x, y, h, b, problem)
    out = b.new_zeros(x.shape[0], b.shape[1])
    if backend == "native" and x.device.type == "cpu":
        for begin in range(0, b.shape[1], native_cpu.SLICE):
            features = b[:, begin : begin + native_cpu.SLICE].contiguous()
            part = b.new_empty(x.shape[0], features.shape[1])
            _call(1, features.shape[1], x, u, y, h, features, part, problem)
            out[:, begin : begin + native_cpu.SLICE] = part
        return out
    for i, j, t in _exponents(x, y, problem):
        out[i] += (t + u[i, None] + h[None, j]).exp() @ b[j]
    return out


def _exponents(x: Tensor, y: Tensor, problem: Problem):
    """Tiles of −|x_i − y_j|²/σ², with the rows and columns they belong to."""
    for i, j, sigma in tiled._tiles(problem):
        yield i, j, -(tiled._differences(x[i], y[j]) / sigma).square().sum(0)


@cache
def _function(which: int, dtype: torch.dtype, d: int, e: int) -> Callable[..., int]:
    macros = {"SF_PASS": str(which), "SF_REAL": native_cpu._REAL[dtype], "SF_D": str(d), "SF_E": str(e)}
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
    plan, at = native_cpu._plan(problem), native_cpu._at
    _function(which, x.dtype, x.shape[1], e)(
        ctypes.byref(plan), problem.sigma.data_ptr(), x.data_ptr(), at(u), y.data_ptr(), h.data_ptr(), at(b), out.data_ptr(),
        torch.get_num_threads(), native_cpu._parallel(),
    )  # fmt: skip
