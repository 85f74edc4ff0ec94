"""Sinkhorn scaling and its linear systems on CUDA: every iteration of every problem in one launch (kernels/scaling.cu), and the host waits for none.

A problem is a team of blocks. With many problems a team is one block; with few it is as many as are resident at once, in a cooperative launch. Gaussian
problems of one block are done on tensor cores (kernels/gaussian_symmetric.h).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from shapeflow.ops.backends.cuda import exponents_on_tensor_cores
from shapeflow.ops.backends.native_call import REAL
from shapeflow.ops.backends.plans import Plans, constants
from shapeflow.ops.compile import nvrtc
from shapeflow.ops.compile.launch import Launch, architecture, current_stream
from shapeflow.ops.problem import Problem

THREADS, WARPS, SUMS = 256, 8, 4  # mirror kernels/scaling.cu
ROWS = 4  # rows that share a warp; one where a block has fewer than two rows a warp
CHUNK, COLUMN = 1024, 16  # too: columns of a chunk, bytes of one in float32 and d <= 3
TENSOR_LARGE = 257  # too: fewest points for tensor cores
SIDE, POINT = 64, 36  # of gaussian_symmetric.h: points of a tile, bytes of one
MOST_SHARED = 94 * 1024  # bytes a block; with 4.7 kB for its own arrays, what every card of sm_80 and later gives
SMALLEST_SHARE = 8  # rows: a smaller share of a problem is not worth a block's part in the barriers


def scale(
    x: Tensor, masses: Tensor, problem: Problem, start: Tensor | None, left: Tensor, alpha: float, beta: float, contraction: float,
    tolerance: float, rounding: float, steps: int,
) -> Tensor:  # fmt: skip
    """ℓ (N,). `left` (B,) float64 grows to the residual of a problem that misses the tolerance."""
    log_scale = torch.full_like(masses, torch.nan) if start is None else start.clone()
    plan, scratch = _plan(problem, x), masses.new_empty(4, masses.shape[0])
    counters, partial = _team_memory(plan, x.device)
    plan.scale.fix(13, alpha, beta, contraction, tolerance, rounding, steps, plan.team, masses.shape[0], plan.room)
    places = (x, masses, log_scale, scratch, scratch[2], scratch[3], counters, partial, left)
    _launch(plan.scale, problem, places)
    return log_scale


def solve(
    x: Tensor, half: Tensor, right: Tensor, problem: Problem, start: Tensor | None, tolerance: float, steps: int
) -> Tensor:
    """u (N,) with (I + HKH) u = right, H = diag(half)."""
    u = torch.zeros_like(right) if start is None else start.clone()
    plan, scratch = _plan(problem, x), right.new_empty(5, right.shape[0])
    counters, partial = _team_memory(plan, x.device)
    plan.solve.fix(15, tolerance, steps, plan.team, plan.room)
    _launch(plan.solve, problem, (x, half, right, u, *scratch, counters, partial))
    return u


def instance(what: str, dtype: torch.dtype, d: int, rows: int, terms: tuple[str, ...], tensor: bool = False) -> str:
    """The template instance: `what` is scale or solve, `rows` share a warp, and `tensor` is for tensor cores."""
    return f"shapeflow_{what}<{str(tensor).lower()}, {REAL[dtype]}, {d}, {rows}, {', '.join(t.upper() for t in terms)}>"


def team_size(sizes: tuple[int, ...], sms: int) -> int:
    """Blocks a problem. More than one only if all of the launch is resident at once, which barriers between blocks need."""
    share = sms // max(len(sizes), 1)
    return max(1, min(share, max(sizes, default=1) // SMALLEST_SHARE))


def tensor_room(sizes: tuple[int, ...], dtype: torch.dtype, d: int, terms: tuple[str, ...], arch: str) -> int:
    """Points of a problem to have shared memory for, where one block does it on tensor cores: in whole tiles, as many as the largest that fits has.
    Zero where none does."""
    if not exponents_on_tensor_cores(dtype, d, terms, arch):
        return 0
    most = MOST_SHARED // (SIDE * POINT)
    tiles = [-(-n // SIDE) for n in sizes if n >= TENSOR_LARGE]
    return SIDE * max((k for k in tiles if k <= most), default=0)


@dataclass(frozen=True)
class _Plan:
    """One layout on one device: the launches, and the tensors and objects that must outlive them."""

    team: int  # blocks a problem
    count: int  # problems
    room: int  # points of a problem that shared memory holds for tensor cores
    scale: Launch
    solve: Launch
    alive: tuple[Any, ...] = field(repr=False)


_plans: Plans[_Plan] = Plans("the scaling of this kernel", most=512)


def _plan(problem: Problem, x: Tensor) -> _Plan:
    key = (x.dtype, x.shape[1], id(problem.radial), id(problem.rows), x.device.index)
    return _plans.get(key, _make_plan, problem, x)


def _make_plan(problem: Problem, x: Tensor) -> _Plan:
    layout, names = problem.rows, tuple(t.name for t in problem.radial.terms)
    team = team_size(layout.sizes, torch.cuda.get_device_properties(x.device).multi_processor_count)
    rows = ROWS if layout.largest // team >= 2 * WARPS else 1
    arch = architecture(x.device.index)
    room = tensor_room(layout.sizes, x.dtype, x.shape[1], names, arch) if team == 1 else 0
    shared = max(room * POINT, CHUNK * COLUMN) if room else 0
    offsets = torch.tensor(layout.offsets, dtype=torch.long, device=x.device)
    numbers = constants(problem.radial, x.device)

    def launch(what: str) -> Launch:
        kernel = _kernel(instance(what, x.dtype, x.shape[1], rows, names, room > 0), arch)
        made = Launch(kernel, (layout.count * team, 1), THREADS, cooperative=team > 1, shared=shared)
        made.fix(0, offsets.data_ptr())
        made.fix(2, numbers.data_ptr(), problem.radial.epsilon)
        return made

    alive = (problem.radial, layout, offsets, numbers)
    with torch.cuda.device(x.device):  # which lets the kernels have that memory
        return _Plan(team, layout.count, room, launch("scale"), launch("solve"), alive)


@cache
def _kernel(name: str, arch: str) -> Any:
    return nvrtc.kernel("scaling.cu", name, arch)


def _team_memory(plan: _Plan, device: torch.device) -> tuple[Tensor, Tensor]:
    """Counters at zero and partial sums, for the barriers of teams."""
    count, shared = plan.count, plan.team > 1
    return (
        torch.zeros(count if shared else 1, dtype=torch.int32, device=device),
        torch.empty(2 * SUMS * count * plan.team if shared else 1, dtype=torch.float64, device=device),
    )


def _launch(launch: Launch, problem: Problem, places: tuple[Tensor, ...]) -> None:
    with torch.cuda.device(places[0].device):
        stream = current_stream(places[0].device.index)
        launch(stream, (1, problem.sigma.data_ptr()), (4, *(t.data_ptr() for t in places)))
