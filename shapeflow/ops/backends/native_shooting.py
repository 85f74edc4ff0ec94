"""Geodesics of the plain Hamiltonian on the CPU, there and back, in one compiled call each (kernels/shooting.cpp).

`shapeflow.shooting` has the equations: it does the same in Python for every other metric, device and backend.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from ctypes import c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from shapeflow.errors import BackendError
from shapeflow.ops.backends import native_cpu, nearby
from shapeflow.ops.backends.entries import DA, DB, DX, DY
from shapeflow.ops.backends.native_call import REAL, SLICE, plan_of, pool
from shapeflow.ops.compile import host
from shapeflow.ops.problem import Problem


class Flow(ctypes.Structure):
    """What stays the same along a geodesic (kernels/shooting.cpp), with what it points to kept alive."""

    _fields_ = (
        ("sums", c_void_p), ("plan", c_void_p), ("sigma", c_void_p), ("n", c_int64), ("d", c_int64), ("steps", c_int), ("stages", c_int),
        ("a", c_void_p), ("b", c_void_p), ("threads", c_int), ("pool", c_void_p),
    )  # fmt: skip


@dataclass(frozen=True)
class Tape:
    """The states (2, N, d) at which fields were taken, and what the way back needs beside them."""

    states: Tensor
    problem: Problem
    steps: int
    a: Sequence[Sequence[float]]
    b: Sequence[float]


def suits(q: Tensor, problem: Problem) -> bool:
    """Whether these points can be shot here: on the CPU, few enough that every pair is visited, features that are not sliced."""
    every_pair = q.shape[0] ** 2 < nearby.COSTS["cpu"].fewest and os.environ.get("SHAPEFLOW_NEARBY") != "1"
    return problem.sigma.device.type == "cpu" and every_pair and 0 < q.shape[1] <= SLICE and q.numel() > 0


def shoot(
    q: Tensor, p: Tensor, problem: Problem, steps: int, a: Sequence[Sequence[float]], b: Sequence[float], keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tape | None]:
    """(q(1), p(1), v(0), tape) by the explicit scheme of Butcher's a and b; a tape if one is to be kept."""
    state = torch.stack([q, p])
    velocity, slopes = torch.empty_like(state[0]), state.new_empty(len(b), *state.shape)
    states = state.new_empty(steps * len(b) if keep else 1, *state.shape)
    _call(0, Tape(states, problem, steps, a, b), state, velocity, slopes, states, c_int(keep))
    return state[0], state[1], velocity, Tape(states, problem, steps, a, b) if keep else None


def pull(tape: Tape, bar_q: Tensor, bar_p: Tensor, bar_v: Tensor) -> tuple[Tensor, Tensor]:
    """Cotangents of (q, p) at time 0 from those of q(1), p(1) and v(0)."""
    bar = torch.stack([bar_q, bar_p])
    pulled, seed = bar.new_empty(len(tape.b), *bar.shape), torch.empty_like(bar)
    _call(1, tape, bar, bar_v.contiguous(), tape.states, pulled, seed)
    return bar[0], bar[1]


def _call(way: int, tape: Tape, *arguments: Tensor | c_int) -> None:
    states, problem, count = tape.states, tape.problem, len(tape.b)
    d, a, b = states.shape[-1], (c_double * (count * count))(), (c_double * count)(*tape.b)
    for k, row in enumerate(tape.a):
        a[k * count : k * count + len(row)] = row
    plan, names = plan_of(problem), tuple(t.name for t in problem.radial.terms)
    sums = _operator(way, names, states.dtype, d, native_cpu.mutual(problem, d))
    flow = Flow(
        sums, ctypes.addressof(plan), problem.sigma.data_ptr(), states[0, 0].numel(), d, tape.steps, count,
        ctypes.addressof(a), ctypes.addressof(b), torch.get_num_threads(), pool(),
    )  # fmt: skip
    function = _functions(states.dtype)[way]
    if function(ctypes.byref(flow), *(t.data_ptr() if isinstance(t, Tensor) else t for t in arguments)):
        raise BackendError(f"out of memory while shooting {problem.rows.count} problems of {problem.rows.total} points")


@cache
def _operator(way: int, names: tuple[str, ...], dtype: torch.dtype, d: int, mutual: bool) -> int | None:
    """The address of `fused`, for the way there, or of `tangent`, for the way back."""
    op, mask = (("fused", 0), ("tangent", DX | DA | DY | DB))[way]
    function = native_cpu.compiled(native_cpu.Specialization(op, names, dtype, d, d, mask, mutual))
    return ctypes.cast(function, c_void_p).value  # pyright: ignore[reportArgumentType]


@cache
def _functions(dtype: torch.dtype) -> tuple[Callable[..., int], Callable[..., int]]:
    library = host.library("shooting.cpp", {"SF_REAL": REAL[dtype]})
    shoot, pull = library.shapeflow_shoot, library.shapeflow_pull
    shoot.argtypes = (c_void_p,) * 5 + (c_int,)
    pull.argtypes = (c_void_p,) * 6
    return shoot, pull
