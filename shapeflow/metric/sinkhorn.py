"""The normalized metric, scaled to a tolerance."""

from __future__ import annotations

import torch
from torch import Tensor

from shapeflow.metric.base import Metric
from shapeflow.normalization import in_cache, missed_by, on_card, sinkhorn, solve, warn
from shapeflow.ops.backends import cuda_field, native_scaling
from shapeflow.ops.problem import Problem
from shapeflow.warm import Warm


class SinkhornMetric(Metric):
    """G = ΛKΛ with the scaling solved to a tolerance and differentiated implicitly."""

    def weights(self, q: Tensor, warm: Warm | None = None) -> Tensor:
        start = None if warm is None else warm.last("log_scale")  # a flow asks for the field first, at the same q
        with torch.no_grad():
            log_scale = sinkhorn(self.kernel, q, self.rows, self.masses, self.options, start, warm)
        if not q.requires_grad:
            return log_scale
        return _ImplicitScale.apply(q, log_scale, self)

    def solve(self, q: Tensor, scale: Tensor, right: Tensor, start: Tensor | None = None) -> Tensor:
        """u with (I + D^{1/2}K̃D^{1/2}) u = right."""
        return solve(self.kernel, q, scale, self.masses, right, self.rows, self.options, start)

    def _solve_for(self, name: str, warm: Warm | None, q: Tensor, scale: Tensor, right: Tensor) -> Tensor:
        """The same, with the guess that `warm` has for `name`."""
        if warm is None:
            return self.solve(q, scale, right)
        u = self.solve(q, scale, right, warm.guess(name))
        warm.learn(name, u)
        return u

    def value(self, q: Tensor, p: Tensor, warm: Warm | None) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        if (problem := in_cache(self.kernel, self.rows)) is not None:
            return self._value_in_cache(problem, q.contiguous(), p.contiguous(), warm or Warm())
        if (problem := self._shared(q)) is not None:
            return self._value_shared(problem, q.contiguous(), p.contiguous(), warm)
        mu, root = self.masses, self.masses.sqrt()
        guess = None if warm is None else warm.guess("log_scale")
        log_scale = sinkhorn(self.kernel, q, self.rows, mu, self.options, guess, warm)
        if warm is not None:
            warm.learn("log_scale", log_scale)
        scale = log_scale.exp()
        v = scale[:, None] * self.kernel.product(q, self.rows, q, self.rows, scale[:, None] * p)
        # (I + DK̃) w = a with w = D^{1/2} u is the symmetric system that `solve` knows.
        w = root * self._solve_for("w", warm, q, scale, (p * v).sum(1) / root)
        a, b = _features(scale, p, mu, w)
        g = self.kernel.mutual_gradient(a, q, b, self.rows)
        return v, g, (scale, v, w)

    def adjoint(
        self, q: Tensor, p: Tensor, kept: tuple[Tensor, ...], V: Tensor, h: Tensor, warm: Warm | None
    ) -> tuple[Tensor, Tensor]:
        if (problem := in_cache(self.kernel, self.rows)) is not None:
            return self._adjoint_in_cache(problem, q, p, kept, V.contiguous(), h.contiguous(), warm or Warm())
        if (problem := self._shared(q)) is not None:
            tensors = (q.contiguous(), self.masses, p.contiguous(), kept, V.contiguous(), h.contiguous())
            return cuda_field.adjoint(*tensors, problem, warm or Warm(), self.options.numbers(q.dtype))
        scale, v, w = kept
        mu, root, d = self.masses, self.masses.sqrt(), q.shape[1]
        a, b = _features(scale, p, mu, w)

        # The kernel moving with q̇ = h: K̇ [λp, λμ, λw], and its part of the gradient's derivative.
        moved, g_rate = self.kernel.mutual_tangent(q, h, a, b, self.rows)
        moved_p, moved_mu, moved_w = moved[:, :d], moved[:, d], moved[:, d + 1]

        # The scaling follows: (I + K̃D) ℓ̇ = −λ K̇(λμ).
        log_rate = self._solve_for("log_rate", warm, q, scale, -root * scale * moved_mu) / root

        # v̇ = ℓ̇ v + λ [K̇(λp) + K λ(ℓ̇p + V)], and the same product for λℓ̇w.
        direction = log_rate[:, None] * p + V
        features = scale[:, None] * torch.cat([direction, (log_rate * w)[:, None]], 1)
        pushed = self.kernel.product(q, self.rows, q, self.rows, features)
        v_rate = log_rate[:, None] * v + scale[:, None] * (moved_p + pushed[:, :d])

        # (I + DK̃) ẇ = ȧ − D (K̃)˙ w, where K̃w = (a − w)/μ is known from the forward solve.
        work_rate = (V * v + p * v_rate).sum(1)
        averaged_w = ((p * v).sum(1) - w) / mu
        right = work_rate - mu * (log_rate * averaged_w + scale * (moved_w + pushed[:, d]))
        w_rate = root * self._solve_for("w_rate", warm, q, scale, right / root)

        # The features moving: ⟨ȧ_i, b_j⟩ + ⟨a_i, ḃ_j⟩ is one inner product of twice the length.
        a_rate, b_rate = _features(scale, direction, mu * log_rate, log_rate * w + w_rate)
        twice_a, twice_b = torch.cat([a_rate, a], 1), torch.cat([b, b_rate], 1)
        return g_rate + self.kernel.mutual_gradient(twice_a, q, twice_b, self.rows), v_rate

    # The same in one compiled call each: kernels/scaling.cpp.

    def _value_in_cache(self, problem: Problem, q: Tensor, p: Tensor, warm: Warm):
        guesses = warm.guess("log_scale"), warm.guess("w")
        numbers = self.options.numbers(q.dtype)
        (log_scale, u, v, a, b, g), left = native_scaling.value(q, self.masses, p, problem, *guesses, numbers)
        warn(left, self.options, q.dtype)
        warm.learn("log_scale", log_scale)
        warm.learn("w", u)
        return v, g, (log_scale, u, v, a, b)

    def _adjoint_in_cache(
        self, problem: Problem, q: Tensor, p: Tensor, kept: tuple[Tensor, ...], V: Tensor, h: Tensor, warm: Warm
    ) -> tuple[Tensor, Tensor]:
        guesses = warm.guess("log_rate"), warm.guess("w_rate")
        numbers = self.options.numbers(q.dtype)
        y, z, v_rate, g_rate = native_scaling.rates(
            q.contiguous(), self.masses, p.contiguous(), h, V, kept, problem, *guesses, numbers
        )
        warm.learn("log_rate", y)
        warm.learn("w_rate", z)
        return g_rate, v_rate

    # The same, sums and all, in one launch each: kernels/field.cu.

    def _shared(self, q: Tensor) -> Problem | None:
        """The problem, if shared memory of a CUDA device holds its matrices."""
        problem = on_card(self.kernel, self.rows)
        return problem if problem is not None and cuda_field.suits(problem, q.dtype, q.shape[1]) else None

    def _value_shared(self, problem: Problem, q: Tensor, p: Tensor, warm: Warm | None):
        missed, numbers = missed_by(warm, self.rows, q.device), self.options.numbers(q.dtype)
        v, g, *solved = cuda_field.value(q, self.masses, p, problem, warm or Warm(), missed, numbers)
        if warm is None:
            warn(float(missed.max()), self.options, q.dtype)
        return v, g, (*solved, v)


def _features(scale: Tensor, p: Tensor, mu: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """a = λ [p, −w, −μ] and b = λ [p, μ, w], whose inner products are the bracket of ∂H/∂q."""
    lam = scale[:, None]
    mu, w = mu[:, None], w[:, None]
    return lam * torch.cat([p, -w, -mu], 1), lam * torch.cat([p, mu, w], 1)


class _ImplicitScale(torch.autograd.Function):
    """log λ as a function of q, by the implicit function theorem: (I + K̃D) dℓ = −λ dK(λμ)."""

    @staticmethod
    def forward(ctx, q: Tensor, log_scale: Tensor, metric: SinkhornMetric) -> Tensor:
        ctx.metric = metric
        ctx.save_for_backward(q, log_scale)
        return log_scale.clone()

    @staticmethod
    def backward(ctx, cotangent: Tensor):
        q, log_scale = ctx.saved_tensors
        metric, mu, scale = ctx.metric, ctx.metric.masses, log_scale.exp()
        # Adjoint: (I + DK̃) z = cotangent; then dL = −Σ_i z_i λ_i Σ_j dk(q_i, q_j) λ_j μ_j.
        z = mu.sqrt() * metric.solve(q, scale, cotangent / mu.sqrt())
        row, column = (-z * scale)[:, None], (scale * mu)[:, None]
        a, b = torch.cat([row, column], 1), torch.cat([column, row], 1)
        return metric.kernel.mutual_gradient(a, q, b, metric.rows), None, None
