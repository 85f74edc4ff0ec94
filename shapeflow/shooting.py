"""Geodesic shooting: q' = ∂H/∂p, p' = −∂H/∂q from time 0 to 1, with passive points carried along.

    x' = v(x)        for the points x that the flow carries (landmarks, a finer mesh, a grid)

Gradients are those of the discrete scheme, by autograd through `Metric.field`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shapeflow.integrators import Scheme, combine, scheme, step
from shapeflow.metric import Metric, PlainMetric
from shapeflow.ops.backends import native_shooting
from shapeflow.ops.problem import Problem
from shapeflow.ops.registry import problem_of
from shapeflow.ragged import Ragged
from shapeflow.warm import Warm


@dataclass(frozen=True)
class Carried:
    """Points (N', d) that follow the flow without acting on it, laid out by `rows`."""

    points: Tensor
    rows: Ragged


@dataclass(frozen=True)
class Shot:
    """The end of a geodesic: q, p at time 1, the velocity v at time 0 (H = ½⟨p₀, v⟩ comes for free), the carried
    points, and the path of (q, p) at every step if it was asked for."""

    q: Tensor
    p: Tensor
    velocity: Tensor
    carried: tuple[Tensor, ...]
    path: tuple[tuple[Tensor, Tensor], ...] = ()


def shoot(
    metric: Metric,
    q: Tensor,
    p: Tensor,
    *,
    steps: int = 10,
    integrator: str = "ralston",
    carried: tuple[Carried, ...] = (),
    keep_path: bool = False,
    warm: Warm | None = None,
) -> Shot:
    """Integrate the geodesic of initial position q and momentum p (N, d) over unit time in `steps` equal steps.

    `warm` carries guesses from one geodesic to the next.
    """
    tableau, warm = scheme(integrator), warm or Warm()
    warm.restart(len(tableau.b))
    if not carried and not keep_path:
        end_q, end_p, velocity = _Geodesic.apply(q, p, metric, steps, tableau, warm)
        return Shot(end_q, end_p, velocity, ())
    velocities: list[Tensor] = []

    def rhs(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        q, p, *points = state
        v, g = metric.field(q, p, warm)
        if not velocities:
            velocities.append(v)
        return v, -g, *(metric.velocity(x, c.rows, q, p, warm) for x, c in zip(points, carried, strict=True))

    state: tuple[Tensor, ...] = (q, p, *(c.points for c in carried))
    path = [(q, p)] if keep_path else []
    for _ in range(steps):
        state = step(rhs, state, 1.0 / steps, tableau)
        if keep_path:
            path.append((state[0], state[1]))
    return Shot(state[0], state[1], velocities[0], state[2:], tuple(path))


class _Geodesic(torch.autograd.Function):
    """(q(1), p(1), v(0)) without passengers: the scheme and its adjoint written out, so that a field costs its sums and one update.

    With stages y_k = y + h Σ_l a_kl f_l and the step h Σ_k b_k f_k, the cotangents of the slopes are f̄_k = h b_k ȳ + h Σ_{l>k} a_lk ȳ_l, where ȳ_l
    is f̄_l pulled back through its field, and the step's ȳ becomes ȳ + Σ_k ȳ_k.
    """

    @staticmethod
    def forward(ctx, q: Tensor, p: Tensor, metric: Metric, steps: int, tableau: Scheme, warm: Warm):
        h, keep = 1.0 / steps, ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        ctx.metric, ctx.steps, ctx.tableau, ctx.warm = metric, steps, tableau, warm
        if (problem := _compiled(metric, q)) is not None:
            *end, ctx.tape = native_shooting.shoot(q, p, problem, steps, tableau.a, tableau.b, keep)
            return tuple(end)
        tape: list[tuple[Tensor, Tensor, tuple[Tensor, ...]]] = []
        velocity = None
        for _ in range(steps):
            slopes: list[tuple[Tensor, Tensor]] = []
            for row in tableau.a:
                at_q, at_p = combine((q, p), [h * a for a in row], slopes)
                v, g, kept = metric.value(at_q, at_p, warm)
                slopes.append((v, g))
                velocity = v if velocity is None else velocity
                if keep:
                    tape.append((at_q, at_p, kept))
            q, p = combine((q, p), [h * b for b in tableau.b], slopes)
        ctx.tape = tape
        return q, p, velocity

    @staticmethod
    @once_differentiable
    def backward(ctx, bar_q: Tensor, bar_p: Tensor, bar_v: Tensor):
        if isinstance(ctx.tape, native_shooting.Tape):
            return *native_shooting.pull(ctx.tape, bar_q, bar_p, bar_v), None, None, None, None
        metric, tableau, warm, h = ctx.metric, ctx.tableau, ctx.warm, 1.0 / ctx.steps
        stages, at = len(tableau.b), len(ctx.tape)
        warm.restart(stages)
        while at:
            pulled: list[tuple[Tensor, Tensor]] = []  # of the stages after this one, the last first
            for k in reversed(range(stages)):
                weights = [h * tableau.b[k], *(h * tableau.a[later][k] for later in range(stages - 1, k, -1))]
                V, minus_h = combine(None, weights, [(bar_q, bar_p), *pulled])
                at -= 1
                q, p, kept = ctx.tape[at]
                if at == 0:
                    V = V + bar_v
                pulled.append(metric.adjoint(q, p, kept, V, minus_h, warm))
            bar_q, bar_p = combine((bar_q, bar_p), [1.0] * stages, pulled, sign=1)
        return bar_q, bar_p, None, None, None, None


def _compiled(metric: Metric, q: Tensor) -> Problem | None:
    """The problem, if one compiled call can shoot it from end to end."""
    if metric.kernel.backend != "native" or not isinstance(metric, PlainMetric):
        return None
    problem = problem_of(metric.kernel.sigma, metric.rows, metric.rows, metric.kernel.radial)
    return problem if native_shooting.suits(q, problem) else None
