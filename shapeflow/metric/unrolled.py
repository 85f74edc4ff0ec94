"""The normalized metric, scaled by a number of steps."""

from __future__ import annotations

import torch
from torch import Tensor

from shapeflow.metric.base import Metric
from shapeflow.normalization import Product, in_cache
from shapeflow.ops.backends import native_unrolled
from shapeflow.ops.problem import Problem
from shapeflow.ragged import Ragged
from shapeflow.warm import Warm


class UnrolledMetric(Metric):
    """G = ΛKΛ with λ the result of T steps of the loop of Feydy's talk of 2017 (`sinkhorn_unrolled`; `one_step`: T = 1), differentiated
    as it runs:

        ℓ_0 = 0,   m_t = exp(ℓ_t) μ,   s_t = K m_t,   ℓ_{t+1} = ½ (ℓ_t − log s_t),   λ = exp(ℓ_T)

    Backwards from z_T = ∂H/∂ℓ_T = a = ⟨p, v⟩, with c_t = z_{t+1} / 2s_t and z_t = ½ z_{t+1} − m_t K c_t,

        ∂H/∂q_i = Σ_j [λ_i λ_j ⟨p_i, p_j⟩ − Σ_t (c_ti m_tj + m_ti c_tj)] ∇₁k(q_i, q_j)
    """

    @property
    def steps(self) -> int:
        return 1 if self.options.mode == "one_step" else self.options.iterations

    def value(self, q: Tensor, p: Tensor, warm: Warm | None) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        if (problem := self._compiled(q)) is not None:
            return self._value_in_cache(problem, q.contiguous(), p.contiguous())
        K = self._kernel_at(q)
        log_scale, masses, sums = torch.zeros_like(self.masses), [], []
        for _ in range(self.steps):
            masses.append(log_scale.exp() * self.masses)
            sums.append(K(masses[-1][:, None])[:, 0])
            log_scale = 0.5 * (log_scale - sums[-1].log())
        scale = log_scale.exp()
        v = scale[:, None] * K(scale[:, None] * p)
        z, c, pulled = (p * v).sum(1), [], []
        for m, s in zip(reversed(masses), reversed(sums), strict=True):
            c.insert(0, 0.5 * z / s)
            if len(c) < self.steps:  # ℓ_0 is no unknown
                pulled.insert(0, K(c[0][:, None])[:, 0])
                z = 0.5 * z - m * pulled[0]
        a, b = _unrolled_features(scale[:, None] * p, masses, c)
        g = self.kernel.mutual_gradient(a, q, b, self.rows)
        return v, g, (scale, v, *masses, *sums, *c, *pulled)

    def adjoint(
        self, q: Tensor, p: Tensor, kept: tuple[Tensor, ...], V: Tensor, h: Tensor, warm: Warm | None
    ) -> tuple[Tensor, Tensor]:
        if (problem := self._compiled(q)) is not None:
            return self._adjoint_in_cache(problem, q, p, kept, V, h)
        scale, v, *lists = kept
        T, d, K = self.steps, q.shape[1], self._kernel_at(q)
        masses, sums, c, pulled = lists[:T], lists[T : 2 * T], lists[2 * T : 3 * T], [None, *lists[3 * T :]]
        a, b = _unrolled_features(scale[:, None] * p, masses, c)

        # The kernel moving with q̇ = h: K̇ [λp, m, c], and its part of the gradient's derivative.
        moved, g_rate = self.kernel.mutual_tangent(q, h, a, b, self.rows)
        moved_p, moved_m, moved_c = moved[:, :d], moved[:, d : d + T].unbind(1), moved[:, d + T :].unbind(1)

        # Forwards: ṁ_t, ṡ_t and ℓ̇, then v̇ = ℓ̇ v + λ [K̇(λp) + K λ(ℓ̇p + V)].
        log_rate, m_rate, s_rate = torch.zeros_like(scale), [], []
        for t in range(T):
            m_rate.append(masses[t] * log_rate)
            s_rate.append(moved_m[t] + K(m_rate[t][:, None])[:, 0] if t else moved_m[t])
            log_rate = 0.5 * (log_rate - s_rate[t] / sums[t])
        p_rate = scale[:, None] * (log_rate[:, None] * p + V)
        v_rate = log_rate[:, None] * v + scale[:, None] * (moved_p + K(p_rate))

        # Backwards: ż_t and ċ_t.
        z_rate, c_rate = (V * v + p * v_rate).sum(1), []
        for t in reversed(range(T)):
            c_rate.insert(0, (0.5 * z_rate - c[t] * s_rate[t]) / sums[t])
            if t:
                z_rate = 0.5 * z_rate - m_rate[t] * pulled[t] - masses[t] * (moved_c[t] + K(c_rate[0][:, None])[:, 0])

        # The features moving: ⟨ȧ_i, b_j⟩ + ⟨a_i, ḃ_j⟩ as one inner product; m_0 = μ does not move.
        scaled, minus = scale[:, None] * p, [-x for x in (*c_rate, *m_rate[1:], *c[1:], *masses)]
        twice_a = torch.cat([p_rate, scaled, torch.stack(minus, 1)], 1)
        twice_b = torch.cat([scaled, p_rate, torch.stack([*masses, *c[1:], *m_rate[1:], *c_rate], 1)], 1)
        return g_rate + self.kernel.mutual_gradient(twice_a, q, twice_b, self.rows), v_rate

    def _compiled(self, q: Tensor) -> Problem | None:
        return in_cache(self.kernel, self.rows) if native_unrolled.suits(q.shape[1], self.steps) else None

    def _kernel_at(self, q: Tensor) -> Product:
        return lambda b: self.kernel.product(q, self.rows, q, self.rows, b)

    # The same in one compiled call each: kernels/unrolled.cpp.

    def _value_in_cache(self, problem: Problem, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        *kept, g = native_unrolled.value(q, self.masses, p, problem, self.steps)
        return kept[1], g, tuple(kept)

    def _adjoint_in_cache(
        self, problem: Problem, q: Tensor, p: Tensor, kept: tuple[Tensor, ...], V: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor]:
        q, p, h, V = (t.contiguous() for t in (q, p, h, V))
        v_rate, g_rate = native_unrolled.rates(q, self.masses, p, h, V, kept, problem, self.steps)
        return g_rate, v_rate

    def weights(self, q: Tensor, warm: Warm | None = None) -> Tensor:
        return self._scale_at(q, self.rows, q)[0]

    def _scale_at(self, x: Tensor, rows: Ragged, q: Tensor) -> tuple[Tensor, Tensor]:
        """log λ at the points x and on the support q: the loop λ ← √(λ / K(λμ)) makes sense anywhere.

        Farther out than K can be told from zero, λ stops growing, and velocities fall to their limit, zero.
        """
        least = torch.finfo(x.dtype).tiny
        on, off = torch.zeros_like(self.masses), x.new_zeros(x.shape[0])
        for _ in range(self.steps):
            features = (on.exp() * self.masses)[:, None]
            if x is not q:
                near = self.kernel.product(x, rows, q, self.rows, features)[:, 0]
                off = 0.5 * (off - near.clamp(min=least).log())
            on = 0.5 * (on - self.kernel.product(q, self.rows, q, self.rows, features)[:, 0].log())
        return (on, on) if x is q else (off, on)

    def velocity(self, x: Tensor, rows: Ragged, q: Tensor, p: Tensor, warm: Warm | None = None) -> Tensor:
        off, on = self._scale_at(x, rows, q)
        return off.exp()[:, None] * self.kernel.product(x, rows, q, self.rows, on.exp()[:, None] * p)


def _unrolled_features(scaled: Tensor, masses: list[Tensor], c: list[Tensor]) -> tuple[Tensor, Tensor]:
    """a = [λp, −c, −m] and b = [λp, m, c], whose inner products are the bracket of ∂H/∂q."""
    minus = [-x for x in (*c, *masses)]
    return torch.cat([scaled, torch.stack(minus, 1)], 1), torch.cat([scaled, torch.stack([*masses, *c], 1)], 1)
