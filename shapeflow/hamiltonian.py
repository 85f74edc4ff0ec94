"""The Hamiltonian of a shape metric and its vector field.

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
from typing import Any

import torch
from torch import Tensor

from shapeflow.errors import ShapeflowError
from shapeflow.normalization import Normalization, Product, in_cache, product, sinkhorn, solve, storage, warn
from shapeflow.ops import Radial, resolve
from shapeflow.ops.backends import cuda_nearest, native_scaling
from shapeflow.ops.bound import Kernel
from shapeflow.ops.problem import Problem
from shapeflow.ragged import Ragged
from shapeflow.warm import Warm


@dataclass(frozen=True)
class Metric(ABC):
    """A cometric for B configurations laid out by `rows`; `masses` (N,) stay frozen along a flow."""

    kernel: Kernel
    rows: Ragged
    masses: Tensor
    options: Normalization = field(default_factory=Normalization)

    @abstractmethod
    def field(self, q: Tensor, p: Tensor, warm: Warm | None = None) -> tuple[Tensor, Tensor]:
        """(v, ∂H/∂q), each (N, d), differentiable once in q and p."""

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
        elif _is_capturing(x) or bool(lost.any()):
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


class ImplicitMetric(Metric):
    """A metric whose field and its adjoint are explicit sums: no graph is unrolled through what it solves."""

    def field(self, q: Tensor, p: Tensor, warm: Warm | None = None) -> tuple[Tensor, Tensor]:
        return _Field.apply(q, p, self, warm)

    @abstractmethod
    def value(self, q: Tensor, p: Tensor, warm: Warm | None) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """v, ∂H/∂q and what the adjoint needs of them; no gradients are recorded."""

    @abstractmethod
    def adjoint(
        self, q: Tensor, p: Tensor, kept: tuple[Tensor, ...], V: Tensor, h: Tensor, warm: Warm | None
    ) -> tuple[Tensor, Tensor]:
        """The vector–Jacobian product of the field with cotangents V of v and h of ∂H/∂q: (q̄, p̄)."""


class PlainMetric(ImplicitMetric):
    """G = K."""

    def value(self, q: Tensor, p: Tensor, warm: Warm | None) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        return *self.kernel.fused(p, q, self.rows, q, self.rows, p), ()

    def adjoint(
        self, q: Tensor, p: Tensor, kept: tuple[Tensor, ...], V: Tensor, h: Tensor, warm: Warm | None
    ) -> tuple[Tensor, Tensor]:
        along_v, along_g = self.kernel.tangent(q, h, p, V, p, V, self.rows)
        return along_g, along_v

    def weights(self, q: Tensor, warm: Warm | None = None) -> None:
        return None


class SinkhornMetric(ImplicitMetric):
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
        g = self.kernel.gradient(a, q, self.rows, q, self.rows, b)
        return v, g, (scale, v, w)

    def adjoint(
        self, q: Tensor, p: Tensor, kept: tuple[Tensor, ...], V: Tensor, h: Tensor, warm: Warm | None
    ) -> tuple[Tensor, Tensor]:
        if (problem := in_cache(self.kernel, self.rows)) is not None:
            return self._adjoint_in_cache(problem, q, p, kept, V.contiguous(), h, warm or Warm())
        scale, v, w = kept
        mu, root, d = self.masses, self.masses.sqrt(), q.shape[1]
        a, b = _features(scale, p, mu, w)

        # The kernel moving with q̇ = h: K̇ [λp, λμ, λw], and its part of the gradient's derivative.
        moved, g_rate = self.kernel.tangent(q, h, a, None, b, None, self.rows)
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
        return g_rate + self.kernel.gradient(twice_a, q, self.rows, q, self.rows, twice_b), v_rate

    # The same with what one matrix serves in one compiled call each: kernels/scaling.cpp.

    def _value_in_cache(self, problem: Problem, q: Tensor, p: Tensor, warm: Warm):
        guesses = warm.guess("log_scale"), warm.guess("w")
        numbers = self.options.numbers(q.dtype)
        (log_scale, u, v, a, b), left = native_scaling.value(q, self.masses, p, problem, *guesses, numbers)
        warn(left, self.options, q.dtype)
        warm.learn("log_scale", log_scale)
        warm.learn("w", u)
        return v, self.kernel.gradient(a, q, self.rows, q, self.rows, b), (log_scale, u, v, a, b)

    def _adjoint_in_cache(
        self, problem: Problem, q: Tensor, p: Tensor, kept: tuple[Tensor, ...], V: Tensor, h: Tensor, warm: Warm
    ) -> tuple[Tensor, Tensor]:
        *solved, a, b = kept
        moved, g_rate = self.kernel.tangent(q, h, a, None, b, None, self.rows)
        guesses = warm.guess("log_rate"), warm.guess("w_rate")
        numbers = self.options.numbers(q.dtype)
        y, z, v_rate, twice_a, twice_b = native_scaling.rates(
            q.contiguous(), self.masses, p.contiguous(), V, solved, moved, problem, *guesses, numbers
        )
        warm.learn("log_rate", y)
        warm.learn("w_rate", z)
        return g_rate + self.kernel.gradient(twice_a, q, self.rows, q, self.rows, twice_b), v_rate


class UnrolledMetric(ImplicitMetric):
    """G = ΛKΛ with λ the result of T steps of the loop of 2017 (`sinkhorn_unrolled`; `one_step`: T = 1), differentiated as it runs:

        ℓ_0 = 0,   m_t = exp(ℓ_t) μ,   s_t = K m_t,   ℓ_{t+1} = ½ (ℓ_t − log s_t),   λ = exp(ℓ_T)

    Backwards from z_T = ∂H/∂ℓ_T = a = ⟨p, v⟩, with c_t = z_{t+1} / 2s_t and z_t = ½ z_{t+1} − m_t K c_t,

        ∂H/∂q_i = Σ_j [λ_i λ_j ⟨p_i, p_j⟩ − Σ_t (c_ti m_tj + m_ti c_tj)] ∇₁k(q_i, q_j)
    """

    @property
    def steps(self) -> int:
        return 1 if self.options.mode == "one_step" else self.options.iterations

    def value(self, q: Tensor, p: Tensor, warm: Warm | None) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
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
        g = self.kernel.gradient(a, q, self.rows, q, self.rows, b)
        return v, g, (scale, v, *masses, *sums, *c, *pulled)

    def adjoint(
        self, q: Tensor, p: Tensor, kept: tuple[Tensor, ...], V: Tensor, h: Tensor, warm: Warm | None
    ) -> tuple[Tensor, Tensor]:
        scale, v, *lists = kept
        T, d, K = self.steps, q.shape[1], self._kernel_at(q)
        masses, sums, c, pulled = lists[:T], lists[T : 2 * T], lists[2 * T : 3 * T], [None, *lists[3 * T :]]
        a, b = _unrolled_features(scale[:, None] * p, masses, c)

        # The kernel moving with q̇ = h: K̇ [λp, m, c], and its part of the gradient's derivative.
        moved, g_rate = self.kernel.tangent(q, h, a, None, b, None, self.rows)
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
        return g_rate + self.kernel.gradient(twice_a, q, self.rows, q, self.rows, twice_b), v_rate

    def _kernel_at(self, q: Tensor) -> Product:
        """b -> K b at these points, whose matrix is kept where it is small."""
        stored = storage(self.kernel, q, self.rows)
        return lambda b: product(self.kernel, q, self.rows, b, stored)

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


_METRICS = {
    "none": PlainMetric,
    "sinkhorn": SinkhornMetric,
    "sinkhorn_unrolled": UnrolledMetric,
    "one_step": UnrolledMetric,
}


def _is_capturing(x: Tensor) -> bool:
    """Whether this is being recorded as a CUDA graph, which must not look at values."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def metric(kernel: Kernel, rows: Ragged, masses: Tensor, options: Normalization) -> Metric:
    return _METRICS[options.mode](kernel, rows, masses, options)


def hamiltonian(
    q: Tensor,
    p: Tensor,
    *,
    masses: Tensor | None = None,
    kernel: str | Radial = "gaussian",
    sigma: Any,
    normalization: str | Normalization = "none",
    rows: Ragged | None = None,
    backend: str | None = None,
) -> Tensor:
    """H(q, p) = ½ ⟨p, G_q p⟩: a scalar, or (B,) for a batch laid out by `rows`.

    q, p (N, d); masses (N,), ones unless given (unused without normalization); sigma in mesh units, one number or
    (B,). H has the unit of |p|²/μ when normalized: with masses that sum to one and p = μ ⊗ c, H = ½|c|². Twice
    differentiable in q and p. Source: docs/mathematics.md §2–3.
    """
    if q.shape != p.shape or q.ndim != 2:
        raise ShapeflowError(f"q and p must both be (n, d); received {tuple(q.shape)} and {tuple(p.shape)}")
    layout = rows or Ragged((0, q.shape[0]))
    width = torch.as_tensor(sigma, dtype=q.dtype, device=q.device).expand(layout.count).contiguous()
    mu = torch.ones_like(q[:, 0]) if masses is None else masses
    if mu.shape != q.shape[:1] or not bool((mu > 0).all()):
        raise ShapeflowError(
            f"masses must be {q.shape[0]} positive numbers, one a point; received shape {tuple(mu.shape)}, minimum {float(mu.min()):.3g}"
        )
    options = Normalization(normalization) if isinstance(normalization, str) else normalization
    bound = Kernel(str(Radial.parse(kernel)), width, resolve(backend, q.device))
    value = metric(bound, layout, mu, options).hamiltonian(q, p)
    return value if rows is not None else value[0]


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
    """(v, ∂H/∂q) of an implicit metric."""

    @staticmethod
    def forward(ctx, q: Tensor, p: Tensor, metric: ImplicitMetric, warm: Warm | None):
        v, g, kept = metric.value(q, p, warm)
        ctx.metric, ctx.warm = metric, warm
        ctx.save_for_backward(q, p, *kept)
        return v, g

    @staticmethod
    def backward(ctx, V: Tensor, h: Tensor):
        q, p, *kept = ctx.saved_tensors
        return *ctx.metric.adjoint(q, p, tuple(kept), V, h, ctx.warm), None, None


def _features(scale: Tensor, p: Tensor, mu: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """a = λ [p, −w, −μ] and b = λ [p, μ, w], whose inner products are the bracket of ∂H/∂q."""
    lam = scale[:, None]
    mu, w = mu[:, None], w[:, None]
    return lam * torch.cat([p, -w, -mu], 1), lam * torch.cat([p, mu, w], 1)


def _unrolled_features(scaled: Tensor, masses: list[Tensor], c: list[Tensor]) -> tuple[Tensor, Tensor]:
    """a = [λp, −c, −m] and b = [λp, m, c], whose inner products are the bracket of ∂H/∂q."""
    minus = [-x for x in (*c, *masses)]
    return torch.cat([scaled, torch.stack(minus, 1)], 1), torch.cat([scaled, torch.stack([*masses, *c], 1)], 1)


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
        return metric.kernel.gradient(a, q, metric.rows, q, metric.rows, b), None, None
