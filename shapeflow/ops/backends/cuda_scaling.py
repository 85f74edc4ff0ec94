"""Sinkhorn scaling and its linear systems on CUDA: every iteration of every problem in one launch (kernels/scaling.cu), and the host waits for none.

A problem is a team of blocks. With many problems a team is one block; with few it is as many as are resident at once, in a cooperative launch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from shapeflow.ops.backends.native_call import REAL
from shapeflow.ops.backends.plans import Plans
from shapeflow.ops.compile import nvrtc
from shapeflow.ops.compile.launch import Launch, architecture, current_stream
from shapeflow.ops.problem import Problem

THREADS, WARPS, SUMS = 256, 8, 4  # mirror kernels/scaling.cu
ROWS = 4  # rows that share a warp; one where a block has fewer than two rows a warp
SMALLEST_SHARE = 8  # rows: a smaller share of a problem is not worth a block's part in the barriers


def scale(
    x: Tensor, masses: Tensor, problem: Problem, start: Tensor | None, left: Tensor, alpha: float, beta: float, contraction: float,
    tolerance: float, rounding: float, steps: int,
) -> Tensor:  # fmt: skip
    """ℓ (N,). `left` (B,) float64 grows to the residual of a problem that misses the tolerance."""
    log_scale = torch.full_like(masses, torch.nan) if start is None else start.clone()
    plan, scratch = _plan(problem, x), masses.new_empty(4, masses.shape[0])
    counters, partial = _team_memory(plan, x.device)
    plan.scale.fix(13, alpha, beta, contraction, tolerance, rounding, steps, plan.team, masses.shape[0])
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
    plan.solve.fix(15, tolerance, steps, plan.team)
    _launch(plan.solve, problem, (x, half, right, u, *scratch, counters, partial))
    return u


def instance(what: str, dtype: torch.dtype, d: int, rows: int, terms: tuple[str, ...]) -> str:
    """The template instance: `what` is scale or solve, `rows` share a warp."""
    return f"shapeflow_{what}<{REAL[dtype]}, {d}, {rows}, {', '.join(t.upper() for t in terms)}>"


def team_size(sizes: tuple[int, ...], sms: int) -> int:
    """Blocks a problem. More than one only if all of the launch is resident at once, which barriers between blocks need."""
    share = sms // max(len(sizes), 1)
    return max(1, min(share, max(sizes, default=1) // SMALLEST_SHARE))


@dataclass(frozen=True)
class _Plan:
    """One layout on one device: the launches, and the tensors and objects that must outlive them."""

    team: int  # blocks a problem
    count: int  # problems
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
    offsets = torch.tensor(layout.offsets, dtype=torch.long, device=x.device)
    weights = [t.weight for t in problem.radial.terms] + [t.ratio for t in problem.radial.terms]
    constants = torch.tensor(weights, dtype=torch.float64, device=x.device)

    def launch(what: str) -> Launch:
        kernel = _kernel(instance(what, x.dtype, x.shape[1], rows, names), architecture(x.device.index))
        made = Launch(kernel, (layout.count * team, 1), THREADS, cooperative=team > 1)
        made.fix(0, offsets.data_ptr())
        made.fix(2, constants.data_ptr(), problem.radial.epsilon)
        return made

    alive = (problem.radial, layout, offsets, constants)
    return _Plan(team, layout.count, launch("scale"), launch("solve"), alive)


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
