"""Explicit Runge–Kutta schemes on tuples of tensors.

A scheme is its Butcher tableau: stage k evaluates the derivative at y + h Σ_l a_kl f_l, and the step is h Σ_k b_k
f_k. Passive points ride in the same state, so what they follow is the numerical flow itself, and the tangent of that
flow integrates to its exact Jacobian (Runge–Kutta schemes commute with differentiation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from shapeflow.errors import ConfigError
from shapeflow.ops.backends import cuda_steps

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Scheme:
    """Rows of a (strictly lower triangular) and weights b; `order` is the power of the step in the global error."""

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int


SCHEMES = {
    "euler": Scheme(((),), (1.0,), 1),
    "midpoint": Scheme(((), (0.5,)), (0.0, 1.0), 2),
    "ralston": Scheme(((), (2 / 3,)), (0.25, 0.75), 2),
    "rk4": Scheme(((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), 4),
}


def scheme(name: str) -> Scheme:
    if name not in SCHEMES:
        raise ConfigError(f"unknown integrator {name!r}: write one of {', '.join(SCHEMES)}")
    return SCHEMES[name]


def step(rhs: Callable[[State], State], state: State, h: float, tableau: Scheme) -> State:
    """One step of length h."""
    slopes: list[State] = []
    for row in tableau.a:
        slopes.append(rhs(_advance(state, slopes, row, h)))
    return _advance(state, slopes, tableau.b, h)


def _advance(state: State, slopes: list[State], weights: tuple[float, ...], h: float) -> State:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            state = tuple(y.add(f, alpha=h * weight) for y, f in zip(state, slope, strict=True))
    return state


Pair = tuple[Tensor, Tensor]


def combine(base: Pair | None, weights: Sequence[float], slopes: Sequence[Pair], sign: int = -1) -> Pair:
    """(x + Σ c_k f_k, y + sign Σ c_k g_k) for a pair of equal shapes (N, d), base (x, y) or zero; slopes (f, g).

    The sign is that of Hamilton's equations, whose slopes are (∂H/∂p, −∂H/∂q), and of their adjoint's. On a CUDA device it is one launch.
    """
    used = [(c, pair) for c, pair in zip(weights, slopes, strict=True) if c]
    if not used:
        return base or (slopes[0][0] * 0, slopes[0][1] * 0)
    if cuda_steps.suits(used[0][1][0], len(used)):
        return cuda_steps.combine(base, used, sign)
    (c, (f, g)), *rest = used
    x, y = (f * c, g * (sign * c)) if base is None else (base[0].add(f, alpha=c), base[1].add(g, alpha=sign * c))
    for c, (f, g) in rest:
        x, y = x.add_(f, alpha=c), y.add_(g, alpha=sign * c)
    return x, y
