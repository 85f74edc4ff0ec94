"""Geodesic shooting: q' = ∂H/∂p, p' = −∂H/∂q from time 0 to 1, with passive points carried along.

    x' = v(x)        for the points x that the flow carries (landmarks, a finer mesh, a grid)

Gradients are those of the discrete scheme, by autograd through `Metric.field`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from shapeflow.hamiltonian import Metric, Warm
from shapeflow.integrators import scheme, step
from shapeflow.ragged import Ragged


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
) -> Shot:
    """Integrate the geodesic of initial position q and momentum p (N, d) over unit time in `steps` equal steps."""
    tableau, warm = scheme(integrator), Warm()
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
