"""What a flow does to space: Jacobians at points it carries, and the way back.

    J' = ∇v(x) J, J(0) = I        the Jacobian of the discrete flow, exactly, when J is integrated by the scheme that moves x
    x' = v(x) from time 1 to 0    the inverse map

Shooting from (q(1), −p(1)) runs the same geodesic backwards, so the inverse map needs no stored path.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shapeflow.integrators import scheme, step
from shapeflow.metric import Metric
from shapeflow.ragged import Ragged
from shapeflow.shooting import Carried, shoot
from shapeflow.warm import Warm


def velocity_gradient(
    metric: Metric, x: Tensor, rows: Ragged, q: Tensor, p: Tensor, warm: Warm | None = None
) -> tuple[Tensor, Tensor]:
    """v(x) (N', d) and its derivative ∇v (N', d, d), `[i, c, k]` = ∂v_c/∂x_k."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        v = metric.velocity(x, rows, q, p, warm)
        planes = [torch.autograd.grad(v[:, c].sum(), x, retain_graph=True)[0] for c in range(x.shape[1])]
    return v.detach(), torch.stack(planes, 1)


def jacobian_determinants(
    metric: Metric, q: Tensor, p: Tensor, *, steps: int, integrator: str, at: Carried | None = None
) -> Tensor:
    """det of the flow's Jacobian (N',) at the points `at` (by default the particles q): ≤ 0 where the discrete map
    folds.
    """
    at = at or Carried(q, metric.rows)
    tableau, warm, d = scheme(integrator), Warm(), q.shape[1]

    def rhs(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        q, p, x, jacobian = state
        with torch.no_grad():
            v, g = metric.field(q, p, warm)
        vx, gradient = velocity_gradient(metric, x, at.rows, q.detach(), p.detach(), warm)
        return v.detach(), -g.detach(), vx, gradient @ jacobian

    identity = torch.eye(d, dtype=q.dtype, device=q.device).expand(at.points.shape[0], d, d).contiguous()
    state: tuple[Tensor, ...] = (q.detach(), p.detach(), at.points.detach(), identity)
    for _ in range(steps):
        state = step(rhs, state, 1.0 / steps, tableau)
    return torch.linalg.det(state[3])


def pull_back(metric: Metric, q1: Tensor, p1: Tensor, points: Carried, *, steps: int, integrator: str) -> Tensor:
    """Where the points (N', d) at time 1 came from: φ⁻¹(x), from the end (q1, p1) of a geodesic."""
    return shoot(metric, q1, -p1, steps=steps, integrator=integrator, carried=(points,)).carried[0]
