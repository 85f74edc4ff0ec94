"""Log-sum-exp and soft-max products of Gaussian interactions on CUDA (kernels/lse.cu); tiles, cuts and plans are those of `cuda`.

logsumexp        l_i = log Σ_j exp(h_j − |x_i − y_j|²/σ²)
softmax_product  v_i = Σ_j exp(u_i + h_j − |x_i − y_j|²/σ²) b_j

A Sinkhorn iteration is one call of the first, hundreds of times on one layout: a call looks up its plan, allocates its result and launches one
kernel, or two where columns are cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from shapeflow.ops.backends.cuda import GENERAL, THREADS, choose, tile_map
from shapeflow.ops.backends.native_call import REAL, SLICE, at
from shapeflow.ops.backends.plans import Plans
from shapeflow.ops.compile import nvrtc
from shapeflow.ops.compile.launch import Launch, architecture, current_stream
from shapeflow.ops.problem import Problem

LOGSUMEXP, SOFTMAX = 0, 1  # PASS of kernels/lse.cu


def logsumexp(x: Tensor, y: Tensor, h: Tensor, problem: Problem) -> Tensor:
    """(N,); −∞ for a row without columns, or whose columns all have h = −∞."""
    out = x.new_empty(x.shape[0])
    if out.numel():
        _run(LOGSUMEXP, 0, x, 0, y, h, 0, out.data_ptr(), 0, 1, problem)
    return out


def softmax_product(u: Tensor, x: Tensor, y: Tensor, h: Tensor, b: Tensor, problem: Problem) -> Tensor:
    """(N, e)."""
    e = b.shape[1]
    out = b.new_empty(x.shape[0], e)
    for begin in range(0, e if x.shape[0] else 0, SLICE):
        shift = begin * b.element_size()
        width = min(SLICE, e - begin)
        _run(SOFTMAX, width, x, u.data_ptr(), y, h, b.data_ptr() + shift, out.data_ptr() + shift, e, e, problem)
    return out


def instance(which: int, dtype: torch.dtype, d: int, e: int, r: int) -> str:
    """The template instance of a pass, with e features (none in the first) and r rows a thread."""
    return f"shapeflow_lse<{which}, {REAL[dtype]}, {d}, {e}, {r}>"


def rows_a_thread(which: int, dtype: torch.dtype, d: int, e: int) -> tuple[int, ...]:
    """The choices of R that keep a row's position, sums and their compensation in registers."""
    words = (d + 1 + 3 * e if which == SOFTMAX else d + 7) * (2 if dtype == torch.float64 else 1)
    return tuple(r for r in (1, 2, 4) if r == 1 or r * words <= 112)


@dataclass(frozen=True)
class _Plan:
    """One layout on one device: the launches, and the tensors and objects that must outlive them."""

    partial: int  # numbers: what cut columns leave for the second kernel
    tile: Launch
    reduce: Launch | None
    alive: tuple[Any, ...] = field(repr=False)


_plans: Plans[_Plan] = Plans("this log-sum-exp or soft-max product", most=1024)


def _plan(which: int, e: int, d: int, dtype: torch.dtype, problem: Problem, device: torch.device) -> _Plan:
    key = (which, e, d, dtype, id(problem.rows), id(problem.columns), device.index)
    return _plans.get(key, _make_plan, which, e, d, dtype, problem, device)


def _make_plan(which: int, e: int, d: int, dtype: torch.dtype, problem: Problem, device: torch.device) -> _Plan:
    sms, arch = torch.cuda.get_device_properties(device).multi_processor_count, architecture(device.index)
    r, length = choose(GENERAL, rows_a_thread(which, dtype, d, e), problem.rows.sizes, problem.columns.sizes, sms)
    items, cut = (torch.from_numpy(t).to(device) for t in tile_map(problem.rows, problem.columns, r, length)[:2])
    tile = Launch(_kernel(instance(which, dtype, d, e, r), arch), (len(items), 1), THREADS)
    tile.fix(0, items.data_ptr())
    # of a row of a part: a sum for each feature; or one sum, and the power of two it is to be multiplied by
    numbers, results = (e, e) if which == SOFTMAX else (2, 1)
    reduce = None
    if len(cut):
        kernel = _kernel(f"shapeflow_lse_reduce<{which}, {REAL[dtype]}>", arch)
        reduce = Launch(kernel, (len(cut) * r, results), THREADS)
        reduce.fix(0, cut.data_ptr())
        reduce.fix(3, r * THREADS, e)
    partial = int(cut[:, 3].sum()) * r * THREADS * numbers
    return _Plan(partial, tile, reduce, (problem.rows, problem.columns, items, cut))


@cache
def _kernel(name: str, arch: str) -> Any:
    return nvrtc.kernel("lse.cu", name, arch)


def _run(
    which: int, e: int, x: Tensor, u: int, y: Tensor, h: Tensor, b: int, v: int, ldb: int, ldv: int, problem: Problem
) -> None:
    """Launch on torch's current stream; u, b and v are addresses."""
    index = x.device.index
    if index != torch.cuda.current_device():
        with torch.cuda.device(index):
            return _run(which, e, x, u, y, h, b, v, ldb, ldv, problem)
    stream = current_stream(index)
    plan = _plan(which, e, x.shape[1], x.dtype, problem, x.device)
    partial = x.new_empty(plan.partial) if plan.partial else None
    plan.tile(
        stream, (1, problem.sigma.data_ptr(), x.data_ptr(), u, y.data_ptr(), h.data_ptr(), b, v, at(partial), ldb, ldv)
    )
    if plan.reduce is not None:
        plan.reduce(stream, (1, at(partial), v), (5, ldv))
