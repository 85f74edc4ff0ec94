"""Parallel transport of one deformation along another, by the fanning scheme.

A momentum w at q(0) is carried along the geodesic (q(t), p(t)) so that it stays the same vector of the metric: how would the change that
subject A went through look on subject B? One step of length h (Louis et al., SIAM J. Imaging Sci. 2018):

    J = [q⁺(h) − q⁻(h)] / 2εh,  q± the geodesics of p ± εw from q     a Jacobi field, which agrees with the transported velocity to O(h²)
    ŵ = G⁻¹ J  at the new q,     then  w ← αŵ + βp  so that |w| and ⟨w, p⟩ are kept exactly

The global error is O(h). G is inverted by conjugate gradients on kernel products, so memory stays O(n).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shapeflow.atlas.tangent import TangentSpace
from shapeflow.errors import ShapeflowError
from shapeflow.metric import Metric
from shapeflow.shape import Shape
from shapeflow.shooting import shoot

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Transported:
    """`momentum` (n, d) at `control_points` (n, d), where the geodesic ends, and the `template` there."""

    template: Shape
    control_points: NDArray[np.float64]
    momentum: NDArray[np.float64]


def parallel_transport(
    space: TangentSpace, along: NDArray, momentum: NDArray, *, steps: int = 10, epsilon: float = 1e-3
) -> Transported:
    """Transport `momentum` (n, d) along the geodesic of `along` (n, d) from t = 0 to 1 in `steps` steps."""
    for name, p in (("along", along), ("momentum", momentum)):
        if np.shape(p) != space.control_points.shape:
            raise ShapeflowError(
                f"{name} must be {space.control_points.shape}, one vector a control point; received {np.shape(p)}"
            )
    if steps < 1:
        raise ShapeflowError(f"a transport takes one step or more; received {steps}")
    metric = space.metric()
    q, p, w = (torch.as_tensor(np.array(a, dtype=np.float64)) for a in (space.control_points, along, momentum))
    with torch.no_grad():
        length, angle = _norms(metric, q, p, w)
        for _ in range(steps):
            q, p, w = _step(metric, space, q, p, w, length, angle, steps, epsilon)
    (end,) = space.shapes(np.asarray(along)[None])
    return Transported(end, q.numpy(), w.numpy())


def transported_space(space: TangentSpace, result: Transported) -> TangentSpace:
    """The tangent space at the end of the transport, from which the transported momentum is shot. Masses are frozen along the flow."""
    return replace(space, template=result.template, control_points=result.control_points)


def _norms(metric: Metric, q: Tensor, p: Tensor, w: Tensor) -> tuple[float, float]:
    """⟨w, w⟩ and ⟨w, p⟩ at q."""
    v = cometric(metric, q)(w)
    return float((w * v).sum()), float((p * v).sum())


def _step(metric, space, q, p, w, length, angle, steps, epsilon) -> tuple[Tensor, Tensor, Tensor]:
    h = 1.0 / steps
    # |εw| is a small share of |p|, or of a unit speed when the geodesic stands still
    size = epsilon * float(p.abs().max() or 1.0) / max(float(w.abs().max()), 1e-300)

    def ahead(momentum: Tensor) -> tuple[Tensor, Tensor]:
        # time h of the geodesic of p is time 1 of that of hp
        shot = shoot(metric, q, h * momentum, steps=1, integrator="rk4")
        return shot.q, shot.p / h

    plus, minus = ahead(p + size * w)[0], ahead(p - size * w)[0]
    q1, p1 = ahead(p)
    apply = cometric(metric, q1)
    guess = solve(apply, (plus - minus) / (2.0 * size * h), w)
    v = apply(guess)
    ww, wp, pp = float((guess * v).sum()), float((p1 * v).sum()), float((p1 * apply(p1)).sum())
    return q1, p1, _corrected(guess, p1, ww, wp, pp, length, angle)


def _corrected(w: Tensor, p: Tensor, ww: float, wp: float, pp: float, length: float, angle: float) -> Tensor:
    """αw + βp with ⟨·, ·⟩ = length and ⟨·, p⟩ = angle."""
    if pp <= 1e-300 or length <= 1e-300:
        return w
    across, wanted = ww - wp * wp / pp, length - angle * angle / pp
    # along p to rounding: p is its own transport, and what is left across it is noise
    alpha = float(np.sqrt(max(wanted, 0.0) / across)) if across > 1e-6 * ww else 0.0
    return alpha * w + (angle - alpha * wp) / pp * p


def cometric(metric: Metric, q: Tensor) -> Product:
    """p -> G_q p, the scaling solved once."""
    log_scale = metric.weights(q)
    if log_scale is None:
        return lambda p: metric.kernel.product(q, metric.rows, q, metric.rows, p)
    scale = log_scale.exp()[:, None]
    return lambda p: scale * metric.kernel.product(q, metric.rows, q, metric.rows, scale * p)


def solve(apply: Product, velocity: Tensor, start: Tensor, *, tolerance: float = 1e-8, iterations: int = 500) -> Tensor:
    """G⁻¹v by conjugate gradients from a nearby momentum. Stopping early regularises: a kernel much wider than the spacing is singular."""
    x, r = start.clone(), velocity - apply(start)
    d, rr = r.clone(), float((r * r).sum())
    least = tolerance**2 * float((velocity * velocity).sum())
    for _ in range(iterations):
        if rr <= least:
            break
        g = apply(d)
        curvature = float((d * g).sum())
        if curvature <= 0:  # rounding: what is left of the residual is outside of what the kernel can make
            break
        x, r = x + rr / curvature * d, r - rr / curvature * g
        d, rr = r + float((r * r).sum()) / rr * d, float((r * r).sum())
    return x
