"""What a metric of shapes is: a cometric, its vector field and the field's adjoint.

    H(q, p) = ½ ⟨p, G_q p⟩        q' = v = ∂H/∂p = G_q p        p' = −∂H/∂q

with q (n, d) positions, p (n, d) momenta, and the cometric G_q = K_q (`none`) or its mass-aware normalization K̃ =
ΛKΛ, K̃μ = 1 (docs/mathematics.md §2, §3): a velocity is then a local mass-weighted average of p_j/μ_j, not a sum.
Normalized: with a_i = ⟨p_i, v_i⟩ and (I + DK̃) w = a,

    ∂H/∂q_i = Σ_j λ_i λ_j [⟨p_i, p_j⟩ − w_i μ_j − μ_i w_j] ∇₁k(q_i, q_j)

Second derivatives of H are symmetric, so the vector–Jacobian product of the field (v, ∂H/∂q) with cotangents (V, h)
is the derivative of the field along (ṗ = V, q̇ = h), with the two results exchanged. That one identity is the whole
backward pass: no graph is unrolled through the scaling.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from shapeflow.normalization import Normalization
from shapeflow.ops.backends import cuda_nearest
from shapeflow.ops.bound import Kernel
from shapeflow.ragged import Ragged
from shapeflow.replay import is_recorded
from shapeflow.warm import Warm


@dataclass(frozen=True)
class Metric(ABC):
    """A cometric for B configurations laid out by `rows`; `masses` (N,) stay frozen along a flow.

    Its field and the field's adjoint are explicit sums: no graph is unrolled through what it solves.
    """

    kernel: Kernel
    rows: Ragged
    masses: Tensor
    options: Normalization = field(default_factory=Normalization)

    def field(self, q: Tensor, p: Tensor, warm: Warm | None = None) -> tuple[Tensor, Tensor]:
        """(v, ∂H/∂q), each (N, d), differentiable once in q and p."""
        return _Field.apply(q, p, self, warm)

    @abstractmethod
    def value(self, q: Tensor, p: Tensor, warm: Warm | None) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """v, ∂H/∂q and what the adjoint needs of them; no gradients are recorded."""

    @abstractmethod
    def adjoint(
        self, q: Tensor, p: Tensor, kept: tuple[Tensor, ...], V: Tensor, h: Tensor, warm: Warm | None
    ) -> tuple[Tensor, Tensor]:
        """The vector–Jacobian product of the field with cotangents V of v and h of ∂H/∂q: (q̄, p̄)."""

    @abstractmethod
    def weights(self, q: Tensor, warm: Warm | None = None) -> Tensor | None:
        """log λ (N,), or None without normalization."""

    def hamiltonian(self, q: Tensor, p: Tensor) -> Tensor:
        """H (B,), differentiable twice."""
        return _Energy.apply(q, p, self)

    def velocity(self, x: Tensor, rows: Ragged, q: Tensor, p: Tensor, warm: Warm | None = None) -> Tensor:
        """The velocity that (q, p) induces at any points x (N', d), on the support or off it."""
        log_scale = self.weights(q, warm)
        if log_scale is None:
            return self.kernel.product(x, rows, q, self.rows, p)
        features = log_scale.exp()[:, None] * torch.cat([p, self.masses[:, None]], 1)
        sums = self.kernel.product(x, rows, q, self.rows, features)
        return self._average(sums[:, :-1], sums[:, -1:], x, rows, q, p)

    def _average(self, numerator: Tensor, denominator: Tensor, x: Tensor, rows: Ragged, q: Tensor, p: Tensor) -> Tensor:
        tiny = torch.finfo(x.dtype).tiny
        average, lost = numerator / denominator.clamp(min=tiny), denominator[:, 0] < tiny
        # So far out that every k underflows: the average tends to the velocity of the nearest particle.
        if x.is_cuda and self.kernel.backend == "native":
            nearest = cuda_nearest.nearest(x, lost, rows, q, self.rows)
        elif is_recorded(x) or bool(lost.any()):
            nearest = self._nearest(x, rows, q)
        else:
            return average
        return torch.where(lost[:, None], p[nearest] / self.masses[nearest, None], average)

    def _nearest(self, x: Tensor, rows: Ragged, q: Tensor) -> Tensor:
        differences = "donot_use_mm_for_euclid_dist"  # a matrix product loses digits, and starts a library that a recording cannot
        found = [
            torch.cdist(x[i], q[j], compute_mode=differences).argmin(1) + j.start
            for i, j in zip(rows.slices(), self.rows.slices(), strict=True)
        ]
        return torch.cat(found)


class _Energy(torch.autograd.Function):
    """H, whose gradient is the field itself."""

    @staticmethod
    def forward(ctx, q: Tensor, p: Tensor, metric: Metric) -> Tensor:
        ctx.metric = metric
        ctx.save_for_backward(q, p)
        return 0.5 * metric.rows.sum((p * _velocity_on_support(metric, q, p)).sum(1))

    @staticmethod
    def backward(ctx, cotangent: Tensor):
        q, p = ctx.saved_tensors
        v, g = ctx.metric.field(q, p)
        c = ctx.metric.rows.spread(cotangent)[:, None]
        return c * g, c * v, None


def _velocity_on_support(metric: Metric, q: Tensor, p: Tensor) -> Tensor:
    log_scale = metric.weights(q)
    if log_scale is None:
        return metric.kernel.product(q, metric.rows, q, metric.rows, p)
    scale = log_scale.exp()[:, None]
    return scale * metric.kernel.product(q, metric.rows, q, metric.rows, scale * p)


class _Field(torch.autograd.Function):
    """(v, ∂H/∂q) of a metric."""

    @staticmethod
    def forward(ctx, q: Tensor, p: Tensor, metric: Metric, warm: Warm | None):
        v, g, kept = metric.value(q, p, warm)
        ctx.metric, ctx.warm = metric, warm
        ctx.save_for_backward(q, p, *kept)
        return v, g

    @staticmethod
    def backward(ctx, V: Tensor, h: Tensor):
        q, p, *kept = ctx.saved_tensors
        return *ctx.metric.adjoint(q, p, tuple(kept), V, h, ctx.warm), None, None
