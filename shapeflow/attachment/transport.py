"""The debiased Sinkhorn divergence between weighted points, for B problems of any sizes.

    OT(α, β) = min_π Σ_ij π_ij ½|x_i − y_j|² + ε KL(π | α⊗β) + ρ KL(π1 | α) + ρ KL(πᵀ1 | β)
    S(α, β)  = OT(α, β) − ½ OT(α, α) − ½ OT(β, β) + ½ ε (Σα − Σβ)²

ε = blur² is the square of a length; ρ = reach² too, and ρ = ∞ (balanced transport) asks for Σα = Σβ. S ≥ 0, zero for
α = β only. Dual: potentials f, g with π_ij = α_i β_j exp((f_i + g_j − ½|x_i − y_j|²)/ε), and f is optimal for g when

    f = T(g),    T(g)_i = −ε/(1 + ε/ρ) log Σ_j exp(log β_j + g_j/ε − ½|x_i − y_j|²/ε)

which is one log-sum-exp product of width √(2ε). The dual value at (T(g), g) is, with φ(f) = ρ(1 − e^(−f/ρ)) (or f),

    D(g) = (1 + ε/ρ) Σ α φ(T(g)) + Σ β φ(g) − ε Σα (1 − Σβ)

a lower bound of OT: an error r of the marginals costs it r². By the envelope theorem its derivatives are those at
fixed g, so nothing is unrolled: with s_i = Σ_j β_j exp(…) = e^(−f_i/ρ) (or 1),

    ∂S/∂x_i = α_i [ Σ_j (x_i − y_j) π_ij/α_i − Σ_j (x_i − x_j) π^αα_ij/α_i ],     ∂S/∂α_i = (1 + ε/ρ) [φ(f_i) − φ(f^αα_i)]

Everything here is in double precision: an exponent has the size (diameter/blur)² before its terms cancel, and the slow
modes of a long shape show in its last digits.

Sources: Feydy, Séjourné, Vialard, Amari, Trouvé, Peyré (AISTATS 2019); Séjourné, Feydy, Vialard, Trouvé, Peyré,
Sinkhorn divergences for unbalanced optimal transport (2019); GeomLoss.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shapeflow.ops.logsumexp import kernel_logsumexp
from shapeflow.ragged import Ragged

_log = logging.getLogger("shapeflow.attachment")

TOLERANCE = 1e-4  # of the marginals, as a share of the mass: the value is then good to about its square
LONGEST = 500  # steps at the final ε
LOOK = 5  # steps between two looks
MEMORY = 6  # of the extrapolation

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Points:
    """Weighted points of B problems: x (N, D), weights (N,) ≥ 0."""

    x: Tensor
    weights: Tensor
    rows: Ragged

    def log_weights(self) -> Tensor:
        return self.weights.log()

    def masses(self) -> Tensor:
        return self.rows.sum(self.weights)


@dataclass(frozen=True)
class Target:
    """β and what depends on it alone: its potential against itself at every ε of the schedule, and its dual value."""

    points: Points
    potentials: tuple[Tensor, ...]
    value: Tensor  # (M,): ½[(1 + ε/ρ) φ(T(g)) + φ(g)], to be averaged by β


@dataclass(frozen=True)
class Transport:
    """ε and ρ of B problems. The larger ε of the schedule are gone through first: they bring mass from afar in few steps."""

    schedule: tuple[Tensor, ...]  # (B,) each, falling to the ε that is asked for
    inverse_rho: float  # 1/reach², 0 for balanced transport
    backend: str

    @staticmethod
    def of(blur: Tensor, reach: float | None, diameter: Tensor, backend: str) -> Transport:
        """`blur` and `diameter` (B,) and `reach` in mesh units. From the diameter down, every level halves the blur."""
        levels = max(0, math.ceil(math.log2(max(1.0, float((diameter / blur).max())))))
        schedule = [torch.maximum(diameter * 0.5**k, blur).square() for k in range(levels)]
        return Transport((*schedule, blur.square()), 0.0 if reach is None else reach**-2, backend)

    @property
    def epsilon(self) -> Tensor:
        return self.schedule[-1]

    def image(self, epsilon: Tensor, at: Points, of: Points, potential: Tensor) -> Tensor:
        """T(potential) at the points `at`, the potential being at those of `of`."""
        h = of.log_weights() + potential / of.rows.spread(epsilon)
        width = (2 * epsilon).sqrt()
        mass = kernel_logsumexp(at.x, of.x, h, width, rows=at.rows, columns=of.rows, backend=self.backend)
        return -at.rows.spread(epsilon / (1 + epsilon * self.inverse_rho)) * mass

    def phi(self, f: Tensor) -> Tensor:
        """φ(f)."""
        return f if self.inverse_rho == 0 else -torch.expm1(-f * self.inverse_rho) / self.inverse_rho

    def target(self, points: Points) -> Target:
        potentials: list[Tensor] = []
        for epsilon in self.schedule:
            start = potentials[-1] if potentials else torch.zeros_like(points.weights)
            potentials.append(self.own(points, epsilon, start))
        return Target(points, tuple(potentials), self.own_value(points, potentials[-1]))

    def own(self, a: Points, epsilon: Tensor, start: Tensor) -> Tensor:
        """f = T(f) of α against itself. Averaged with its image, the potential comes nearer by half at every step."""
        return self._settle(lambda f: 0.5 * (f + self.image(epsilon, a, a, f)), start, a, epsilon, memory=0)

    def own_value(self, a: Points, f: Tensor, image: Tensor | None = None) -> Tensor:
        """½[(1 + ε/ρ) φ(T(f)) + φ(f)] (N,): averaged by α, half the dual value of OT(α, α)."""
        image = self.image(self.epsilon, a, a, f) if image is None else image
        return 0.5 * (a.rows.spread(self.gain()) * self.phi(image) + self.phi(f))

    def gain(self) -> Tensor:
        return 1 + self.epsilon * self.inverse_rho

    def cross(self, a: Points, b: Target) -> tuple[Tensor, Tensor]:
        """(f, g) with f = T(g) exactly and g = T(f) to the tolerance.

        What is carried from one ε to the next is g less the target's own potential: smooth, and zero where the shapes meet.
        """
        beta, lead = b.points, torch.zeros_like(b.points.weights)

        def step(epsilon: Tensor) -> Step:
            return lambda g: self.image(epsilon, beta, a, self.image(epsilon, a, beta, g))

        for epsilon, own in zip(self.schedule[:-1], b.potentials, strict=False):
            lead = step(epsilon)(own + lead) - own
        g = self._settle(step(self.epsilon), b.potentials[-1] + lead, beta, self.epsilon, memory=MEMORY)
        return self.image(self.epsilon, a, beta, g), g

    def _settle(self, step: Step, g: Tensor, at: Points, epsilon: Tensor, memory: int) -> Tensor:
        """Fixed point of `step`, by Anderson's extrapolation over the last `memory` steps.

        Sinkhorn's own steps crawl along a shape that is long for its blur: mandibles at a 24th of their length ask for
        1,555 products, extrapolated for 87. A problem that is done stays as it is: a batch is its problems one by one.
        """
        weights = at.weights
        scale, last = 1 / (epsilon * at.masses()), torch.full_like(epsilon, torch.inf)
        active = torch.ones_like(epsilon, dtype=torch.bool)
        history = _Anderson(weights, at.rows, memory)
        for count in range(LONGEST):
            residual = step(g) - g
            if self.inverse_rho == 0:  # a constant more in g is a constant less in f
                residual = residual - at.rows.spread(at.rows.sum(weights * residual) / at.masses())
            change = scale * at.rows.sum(weights * residual.abs())
            new = history.extrapolate(g, residual, steady=change < 10 * last)
            g, last = torch.where(at.rows.spread(active), new, g), change
            active = active & (change > TOLERANCE)
            if (count < 2 or count % LOOK == 0) and not bool(active.any()):
                return g
        _log.warning(
            "optimal transport stopped after %d steps with marginals off by %.1e: a larger blur (attachment.widths) or a reach needs fewer",
            LONGEST,
            float(torch.where(active, last, 0.0).max()),
        )
        return g

    def pull(self, a: Points, b: Points, g: Tensor) -> Tensor:
        """Σ_j (x_i − y_j) π_ij/α_i = (1 + ε/ρ) s_i ∂T(g)/∂x_i, (N, D)."""
        with torch.enable_grad():
            x = a.x.detach().requires_grad_()
            f = self.image(self.epsilon, replace(a, x=x), b, g)
            (slope,) = torch.autograd.grad(f.sum(), x)
        arrives = a.rows.spread(self.gain()) * (1 - self.inverse_rho * self.phi(f.detach()))
        return arrives[:, None] * slope


class _Anderson:
    """g + r − Σ_k θ_k (ΔG_k + ΔR_k) with θ minimising |r − Σ_k θ_k ΔR_k|², weighted, for every problem by itself."""

    def __init__(self, weights: Tensor, rows: Ragged, memory: int) -> None:
        self.weights, self.rows, self.memory = weights, rows, memory
        self.before: tuple[Tensor, Tensor] | None = None
        self.moves: list[Tensor] = []  # ΔG + ΔR, (N,) each
        self.turns: list[Tensor] = []  # ΔR

    def extrapolate(self, g: Tensor, r: Tensor, steady: Tensor) -> Tensor:
        if self.memory == 0:
            return g + r
        if self.before is not None:
            turn = r - self.before[1]
            self.moves = [*self.moves, g - self.before[0] + turn][-self.memory :]
            self.turns = [*self.turns, turn][-self.memory :]
        self.before = (g, r)
        if not self.turns:
            return g + r
        turns, moves = torch.stack(self.turns, 1), torch.stack(self.moves, 1)  # (N, m)
        weighted = self.weights[:, None] * turns
        gram = self.rows.sum(weighted[:, :, None] * turns[:, None, :])  # (B, m, m)
        right = self.rows.sum(weighted * r[:, None])
        ridge = 1e-10 * gram.diagonal(dim1=1, dim2=2).amax(1) + torch.finfo(torch.float64).tiny
        eye = torch.eye(turns.shape[1], dtype=turns.dtype, device=turns.device)
        theta = torch.linalg.solve_ex(gram + ridge[:, None, None] * eye, right)[0]
        theta = torch.where(steady[:, None], theta, 0.0)
        return g + r - (moves * self.rows.spread(theta)).sum(1)


class Divergence(torch.autograd.Function):
    """S(α, β) (B,) float64 as a function of the points and weights of α."""

    @staticmethod
    def forward(ctx, x: Tensor, weights: Tensor, rows: Ragged, target: Target, transport: Transport):
        source, beta, phi = Points(x.contiguous(), weights.contiguous(), rows), target.points, transport.phi
        f, g = transport.cross(source, target)
        own = transport.own(source, transport.epsilon, f)
        image = transport.image(transport.epsilon, source, source, own)
        gain = rows.spread(transport.gain())
        value = rows.sum(source.weights * (gain * phi(f) - transport.own_value(source, own, image)))
        value = value + beta.rows.sum(beta.weights * (phi(g) - target.value))
        if transport.inverse_rho:
            value = value + 0.5 * transport.epsilon * (beta.masses() - source.masses())
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            pull = transport.pull(source, beta, g) - transport.pull(source, source, own)
            ctx.save_for_backward(source.weights[:, None] * pull, gain * (phi(f) - phi(image)))
        ctx.rows = rows
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, cotangent: Tensor):
        pull, slope = ctx.saved_tensors
        scale = ctx.rows.spread(cotangent)
        return scale[:, None] * pull, scale * slope, None, None, None
