"""The initial inverse Hessian of a matching, and what it learns on the way.

Momenta act through velocities, so the energy's second derivative in p₀ is about

    γ G + w Bᵀ M B          G the metric at the source, B p the displacement that p gives it, M the attachment's curvature,

as badly conditioned as the kernel squared. Two levels undo that. Measuring momenta in their own norm ⟨p, G p⟩ takes
one factor of the kernel out everywhere,

    P₀ = D^{1/2} (A + δρI)⁻¹ D^{1/2},     A = D^{1/2} Λ K Λ D^{1/2}     (Λ = D = I without normalization)

with ρ the largest row sum of A and δ = 1e-3: below that, directions are rounding and noise. What is left is stiff in
the few hundred directions in which the attachment resists most; they are smooth, so momenta at some of the points (R
picks them) give them all. With V the generalized eigenvectors there, VᵀA_cV = I and VᵀTV = diag(τ), T = Rᵀ Bᵀ M B R,

    P_κ = P₀ − R V diag(τ/(κ + τ)) Vᵀ Rᵀ          (all within D^{1/2} … D^{1/2}),

the exact inverse of A + δρI + T/κ if R picks every point; symmetric and positive always. τ is in units of the largest,
so that P depends on the source alone, and the problems of a source share it; the factor w is found by L-BFGS.

κ says how much of M to believe: γ/w where the model holds, far more where the shapes are still apart, since then
neither the features nor the flow are those of the source. Nothing known at the start tells which. But every accepted
step s and the change y of the gradient over it do: by Cauchy–Schwarz

    ω(κ) = ⟨y, P_κ y⟩⟨s, P_κ⁻¹ s⟩ / ⟨s, y⟩² ≥ 1,     and = 1 only if P_κ y is along s, as the inverse Hessian would have it,

and with V both products are sums that cost nothing, for a whole `LADDER` of κ. Each problem takes the κ whose log ω,
averaged over its steps with a memory of about five, is least; of several that rounding alone tells apart (a first step along one of V), the largest, so that no
two ways of summing decide differently. Measured: docs/benchmarks/convergence.md.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shapeflow.matching.curvature import Basis
from shapeflow.metric import Metric
from shapeflow.ops import Radial
from shapeflow.ragged import Ragged
from shapeflow.sampling import farthest_points

EXACT = 2500  # a source of more points is seen through this many of them (Nyström): memory stays linear
WHOLE, COARSE = 320, 160  # R picks every point of a source that has at most WHOLE, else COARSE
DELTA = 1e-3
START, LADDER = 1.0, tuple(2.0**k for k in range(-8, 11))
KEEP = 0.8  # of the average, at every step
TIE = 1e-9  # differences of log ω, of order one, that are rounding in double precision

Stiffness = Callable[[int, Basis], Tensor | None]


@dataclass(frozen=True)
class _Factor:
    """P_κ within D^{1/2} … D^{1/2}, for one source: (A + shift I)⁻¹ as `inverse` (m, m), through `columns` (n, m) when A is approximated, and
    on the points `coarse` (c,) the stiff `directions` V (c·d, c·d) with their `tau` (c·d,).
    """

    inverse: Tensor
    shift: float
    columns: Tensor | None
    coarse: Tensor
    directions: Tensor
    tau: Tensor

    def plain(self, right: Tensor) -> Tensor:
        """(A + shift I)⁻¹ of (k, n, d)."""
        if self.columns is None:
            return self.inverse @ right
        return (right - self.columns @ (self.inverse @ (self.columns.T @ right))) / self.shift

    def coordinates(self, right: Tensor) -> Tensor:
        """VᵀRᵀ of (k, n, d): (k, c·d)."""
        return right[:, self.coarse].flatten(1) @ self.directions

    def apply(self, right: Tensor, kappa: Tensor) -> Tensor:
        """(k, n, d), each with its own κ (k,)."""
        out = self.plain(right)
        share = self.tau / (kappa[:, None] + self.tau)
        taken = (self.coordinates(right) * share) @ self.directions.T
        out[:, self.coarse] -= taken.view(len(right), -1, right.shape[2])
        return out


class InverseHessian:
    """P for every problem of a batch. `keys` (B,) are equal where source, widths and units are; `stiffness(b, basis)`
    is T of problem b, None where the attachment's curvature is unknown (then P = P₀).
    """

    def __init__(self, metric: Metric, q: Tensor, keys: Sequence[Hashable], stiffness: Stiffness) -> None:
        self.metric, self.q = metric, q
        with torch.no_grad():
            log_scale = metric.weights(q)
        self.scale = None if log_scale is None else log_scale.exp()[:, None]
        known: dict[Hashable, _Factor] = {}
        for b, (key, piece) in enumerate(zip(keys, metric.rows.slices(), strict=True)):
            if key not in known:
                scale = None if self.scale is None else self.scale[piece, 0].double()
                known[key] = _factor(metric, b, q[piece], scale, metric.masses[piece].double(), stiffness)
        self.factors = [known[key] for key in keys]
        self.restart()

    def restart(self) -> None:
        """Forget the steps seen."""
        rows: Ragged = self.metric.rows
        like = {"dtype": torch.float64, "device": self.q.device}
        self.ladder = torch.tensor(LADDER, **like)
        self.score = torch.zeros(rows.count, len(LADDER), **like)
        self.kappa = torch.full((rows.count,), START, dtype=self.q.dtype, device=self.q.device)
        members: dict[int, list[int]] = {}
        for b, factor in enumerate(self.factors):
            members.setdefault(id(factor), []).append(b)
        # problems that share a factor are one product: the problems (k,) and their rows (k, n)
        self.groups = [
            (
                self.factors[group[0]],
                torch.tensor(group).to(self.q.device),
                rows.select(group)[1].view(len(group), -1).to(self.q.device),
            )
            for group in members.values()
        ]

    def select(self, problems: Sequence[int], metric: Metric, q: Tensor) -> InverseHessian:
        """P of some of the problems, whose metric and points are given, with what it has learnt."""
        some = object.__new__(InverseHessian)
        some.metric, some.q, some.factors = metric, q, [self.factors[b] for b in problems]
        rows = self.metric.rows.select(problems)[1].to(q.device)
        some.scale = None if self.scale is None else self.scale[rows]
        some.restart()
        kept = torch.tensor(list(problems)).to(q.device)
        some.score, some.kappa = self.score[kept], self.kappa[kept]
        return some

    def __call__(self, gradient: Tensor) -> Tensor:
        right = self._inward(gradient)
        out = torch.empty_like(right)
        for factor, problems, rows in self.groups:
            out[rows] = factor.apply(right[rows], self.kappa[problems])
        return self._inward(out)

    def typical(self, gradient: Tensor) -> Tensor:
        """P of the first problem (n, d), with the geometric mean of all κ: for what problems of one source share."""
        half = None if self.scale is None else self.metric.masses[: len(gradient)].sqrt()[:, None]
        right = gradient if half is None else half * gradient
        out = self.factors[0].apply(right[None], self.kappa.log().mean().exp()[None])[0]
        return out if half is None else half * out

    def learn(self, s: Tensor, y: Tensor, accepted: Tensor) -> None:
        """Take in a step s (N, d) and the change y of the gradient, for the problems in `accepted` (B,)."""
        rows, kernel = self.metric.rows, self.metric.kernel
        moved = kernel.product(self.q, rows, self.q, rows, s if self.scale is None else self.scale * s)
        velocity = self._inward(moved if self.scale is None else self.scale * moved)
        right, left = self._inward(y), s if self.scale is None else s / self.metric.masses.sqrt()[:, None]
        for factor, problems, piece in self.groups:
            omega = _misfit(
                factor, right[piece], left[piece], velocity[piece] + factor.shift * left[piece], self.ladder
            )
            use = accepted[problems] & omega.isfinite().all(1)
            mean = KEEP * self.score[problems] + (1 - KEEP) * omega
            self.score[problems] = torch.where(use[:, None], mean, self.score[problems])
        least = self.score.amin(1, keepdim=True) + max(TIE, 16 * torch.finfo(self.q.dtype).eps)
        best = torch.where(self.score <= least, self.ladder, 0.0).amax(1).to(self.kappa)
        self.kappa = torch.where(accepted, best, self.kappa)

    def _inward(self, momenta: Tensor) -> Tensor:
        return momenta if self.scale is None else self.metric.masses.sqrt()[:, None] * momenta


def _misfit(factor: _Factor, y: Tensor, s: Tensor, image: Tensor, ladder: Tensor) -> Tensor:
    """log ω (k, len(ladder)) of the pairs s, y (k, n, d) within D^{1/2} … D^{1/2}; `image` is (A + δρI) s. NaN where ⟨s, y⟩ ≤ 0."""

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1).double()[:, None]

    share, tau = 1 / (ladder + factor.tau[:, None].double()), factor.tau.double()
    inverse = inner(y, factor.plain(y)) - (factor.coordinates(y).double().square() * tau) @ share
    direct = inner(s, image) + (factor.coordinates(image).double().square() @ tau)[:, None] / ladder
    return (inverse * direct).log() - 2 * inner(s, y).log()


def _factor(metric: Metric, b: int, q: Tensor, scale: Tensor | None, masses: Tensor, stiffness: Stiffness) -> _Factor:
    """Computed in double precision, kept in that of the points."""
    dtype, q, n, d = q.dtype, q.double(), *q.shape
    radial, sigma = Radial.parse(metric.kernel.radial), metric.kernel.sigma[b].double()
    half = torch.ones_like(masses) if scale is None else masses.sqrt()
    outer = half if scale is None else half * scale
    count = n if n <= WHOLE else COARSE
    wanted = max(count, EXACT if n > EXACT else 0)
    order = np.arange(n) if wanted == n else farthest_points(q.cpu().numpy(), wanted)
    picked = torch.as_tensor(order, device=q.device)
    coarse = picked[:count]

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return radial.value((torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist") / sigma).square())

    def basis(x: Tensor) -> Tensor:
        if scale is None:
            return kernel(x, q[coarse])
        every = kernel(x, q)
        return every[:, coarse] * scale[coarse] / (every @ (scale * masses))[:, None]

    def metric_at(chosen: Tensor) -> Tensor:
        return kernel(q[chosen], q[chosen]) * outer[chosen, None] * outer[chosen]

    if n <= EXACT:
        every = metric_at(torch.arange(n, device=q.device))
        shift = DELTA * float(every.sum(1).max())
        inverse, columns = _inverse(every, shift), None
    else:
        columns = kernel(q, q[picked]) * outer[:, None] * outer[picked]
        shift = DELTA * float(columns.sum(1).max()) * n / len(picked)
        # Woodbury; the jitter keeps the picked columns independent
        system = shift * columns[picked] + columns.T @ columns
        inverse, columns = _inverse(system, 1e-12 * float(columns.square().sum())), columns.to(dtype)
    t = stiffness(b, basis)
    if t is None:
        t = q.new_zeros(count, d, count, d)
    t = (half[coarse, None, None, None] * t * half[coarse, None]).reshape(count * d, count * d)
    directions, tau = _stiff(metric_at(coarse), shift, t, d)
    return _Factor(inverse.to(dtype), shift, columns, coarse, directions.to(dtype), tau.to(dtype))


def _stiff(metric: Tensor, shift: float, t: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """V and τ ≥ 0: Vᵀ(metric + shift I)V = I on every axis and VᵀtV ∝ diag(τ), the largest τ being one."""
    eye = torch.eye(len(metric)).to(metric)
    lower = torch.linalg.cholesky(metric + shift * eye)
    white = torch.einsum("mn,de->mdne", torch.linalg.inv(lower), torch.eye(d).to(metric)).reshape(t.shape)
    inner = white @ t @ white.T
    tau, vectors = torch.linalg.eigh(inner)
    tau = tau.clamp(min=0)
    return white.T @ vectors, tau / tau[-1].clamp(min=torch.finfo(t.dtype).tiny)


def _inverse(matrix: Tensor, shift: float) -> Tensor:
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix + shift * eye))
