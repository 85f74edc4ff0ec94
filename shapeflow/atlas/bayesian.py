"""The Bayesian atlas: how large the noise is and how momenta vary, estimated with template and momenta.

With a_s = p_s / ρR_s the momenta in units of what is expected of them, and r_s = A(φ_s(t), T_s) / ‖T_s‖² what is left (R_s = ‖T_s‖ = 1 with
`units="mesh"`), subjects s = 1 … N are modelled as

    a_s ~ N(0, Γ)                           m = n_c · d numbers
    residual ~ N(0, σ²) in Λ dimensions     of squared norm r_s
    Γ ~ inverse Wishart(ν_Γ, G⁻¹)           G the cometric at the initial control points, which stays; so ρ²R_s²G⁻¹ of p_s
    σ² ~ inverse Wishart(ν_ε, σ₀²)

and what is minimised, over everything, is minus the logarithm of the posterior (constants left out)

    J = Σ_s [½ a_sᵀ Γ⁻¹ a_s + r_s / 2σ²] + ½ (N + ν_Γ) log|GΓ| + ½ ν_Γ tr(Γ⁻¹ G⁻¹) + ½ (NΛ + ν_ε) log σ² + ½ ν_ε σ₀² / σ².

Given template and momenta the best Γ and σ² are

    Γ = (ν_Γ G⁻¹ + Σ_s a_s a_sᵀ) / (N + ν_Γ)            σ² = (ν_ε σ₀² + Σ_s r_s) / (NΛ + ν_ε),

and given these, template and momenta minimise 2σ²J/N, an atlas energy in which σ² a_sᵀ Γ⁻¹ a_s stands for γH: with Γ = G⁻¹ (before the first
update, or ν_Γ → ∞) the deterministic one with γ = 2σ²/ρ². Rounds of L-BFGS and updates take turns, and J falls in both.

Γ = w G⁻¹ + F Fᵀ is never formed. With V = G F, by Woodbury's identity and the determinant lemma,

    Γ⁻¹ a = [G a − V (wI + FᵀV)⁻¹ Fᵀ G a] / w,    log|GΓ| = m log w + log|I + FᵀV/w|,    tr(Γ⁻¹G⁻¹) = [m − tr((wI + FᵀV)⁻¹ FᵀV)] / w:

one product with G an evaluation, N × N matrices and O(Nm) memory, for any number of control points. It is done in double precision, since
1/w (1,001 unless said) is what the subtraction loses.

Source: Gori, Colliot, Marrakchi-Kacem, Worbe, Poupon, Hartmann, Ayache, Durrleman, "A Bayesian framework for joint morphometry of surface and
curve meshes in multi-object complexes" (Medical Image Analysis 2017). Λ is counted as Deformetrica does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shapeflow.atlas.objective import AtlasObjective, Step
from shapeflow.atlas.spec import AtlasSpec
from shapeflow.matching import MatchingSpec
from shapeflow.optimize import Minimum, Objective
from shapeflow.shape import Shape

_log = logging.getLogger("shapeflow.atlas")


@dataclass(frozen=True)
class BayesianEstimate:
    """Γ = `weight` G⁻¹ + Σ_k F_k F_kᵀ with the `factor` F (N, n_c, d), of momenta divided by their subject's `unit` (N,), ρR_s; G is
    the cometric at `control_points` (n_c, d) with `masses` (n_c,). `noise_std` σ: the root of the residual's share in each of `noise_dimension` Λ.
    """

    noise_std: float
    noise_dimension: int
    weight: float
    factor: np.ndarray
    unit: np.ndarray
    control_points: np.ndarray
    masses: np.ndarray


class Covariance:
    """Γ = w G⁻¹ + F Fᵀ through products with G: `factor` F and `moved` V = G F, both (k, m)."""

    def __init__(self, weight: float, factor: Tensor, moved: Tensor) -> None:
        self.weight, self.factor, self.moved = weight, factor, moved
        self.gram = 0.5 * (factor @ moved.T + moved @ factor.T)  # FᵀV, symmetric to the last bit
        eye = torch.eye(len(factor)).to(factor)
        self.lower = torch.linalg.cholesky(weight * eye + self.gram)

    def precision(self, moved: Tensor) -> Tensor:
        """Γ⁻¹ a (N, m), from `moved` = G a."""
        shares = torch.cholesky_solve(self.factor @ moved.T, self.lower)  # (k, N)
        return (moved - shares.T @ self.moved) / self.weight

    def log_determinant(self) -> float:
        """log|GΓ|."""
        m, k = self.factor.shape[1], len(self.factor)
        return (m - k) * math.log(self.weight) + 2 * float(self.lower.diagonal().log().sum())

    def trace(self) -> float:
        """tr(Γ⁻¹G⁻¹)."""
        inside = torch.cholesky_solve(self.gram, self.lower)
        return (self.factor.shape[1] - float(inside.diagonal().sum())) / self.weight


class BayesianObjective(Objective):
    """2σ²J/N in template and momenta, and the updates of Γ and σ². `fit` is the atlas energy without its Hamiltonian: the mean of r_s."""

    columns = ("objective", "noise_std")

    def __init__(self, fit: AtlasObjective, spec: AtlasSpec) -> None:
        self.fit, self.rows, self.spec = fit, fit.rows, spec
        matching, self.count = fit.matching, fit.count
        n = matching.q0.shape[0] // self.count
        self.kernel = replace(matching.metric.kernel, sigma=matching.metric.kernel.sigma.double())
        self.q, masses = matching.q0.double(), matching.metric.masses.double()
        with torch.no_grad():
            log_scale = replace(matching.metric, kernel=self.kernel, masses=masses).weights(self.q)
        self.scale = None if log_scale is None else log_scale.exp()[:, None]
        self.controls, self.masses = self.q[:n], masses[:n]
        relative = spec.matching.units == "relative"
        self.unit = spec.momenta_std * (matching.radius if relative else torch.ones_like(matching.radius))
        self.size = n * self.q.shape[1]  # m
        self.dimension = noise_dimension(matching.problems[0].source, spec.matching)
        self.momenta_dof = spec.momenta_prior * self.count
        self.noise_dof = spec.noise_prior * self.count * self.dimension
        nothing = self.q.new_zeros(0, self.size)
        self.covariance = Covariance(1.0, nothing, nothing)
        self.noise_scale = spec.noise_std**2 if spec.noise_std is not None else self._at_rest()
        self.variance = self.noise_scale

    def _at_rest(self) -> float:
        """σ₀² unless said: everything that separates the initial template from the subjects is noise."""
        value, _ = self.fit.evaluate(self.fit.start())
        return float(value) / self.dimension

    # what L-BFGS asks for

    def evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.fit.evaluate(z)
        terms, slope = self.regularity(z)
        gradient = gradient.clone()
        gradient[self.fit.n :] += slope.to(gradient)
        return value + terms.mean(), gradient

    def regularity(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """σ² a_sᵀ Γ⁻¹ a_s (N,) and the gradient of their mean in the momenta (N·n_c, d)."""
        a = self._scaled(z)
        image = self.covariance.precision(self._moved(a))
        terms = self.variance * (a * image).sum(1)
        return terms, (2 * self.variance / self.count * image / self.unit[:, None]).view(-1, z.shape[1])

    def select(self, problems: Sequence[int]) -> BayesianObjective:
        return self

    def noise(self, value: Tensor) -> Tensor:
        return self.fit.noise(value)

    def precondition(self, gradient: Tensor) -> Tensor:
        return self.fit.precondition(gradient)

    def restart(self) -> None:
        self.fit.restart()

    def learn(self, s: Tensor, y: Tensor, accepted: Tensor) -> None:
        self.fit.learn(s, y, accepted)

    def first_step(self, z: Tensor, value: Tensor, slope: Tensor, direction: Tensor) -> Tensor:
        return self.fit.first_step(z, value, slope, direction)

    # what an estimation asks for, beside

    def posterior(self, value: float) -> float:
        """J, where the energy is `value`."""
        N, sigma2 = self.count, self.variance
        momenta = (N + self.momenta_dof) * self.covariance.log_determinant()
        momenta += self.momenta_dof * self.covariance.trace()
        noise = (N * self.dimension + self.noise_dof) * math.log(sigma2) + self.noise_dof * self.noise_scale / sigma2
        return 0.5 * (N * value / sigma2 + momenta + noise)

    def update(self, z: Tensor, value: float) -> float:
        """Γ and σ² the best for the unknowns z, whose energy is `value`; the energy now."""
        N = self.count
        residual = N * value - float(self.regularity(z)[0].sum())
        a, total = self._scaled(z), N + self.momenta_dof
        factor = a / math.sqrt(total)
        self.covariance = Covariance(self.momenta_dof / total, factor, self._moved(factor))
        self.variance = (self.noise_dof * self.noise_scale + residual) / (N * self.dimension + self.noise_dof)
        return (residual + float(self.regularity(z)[0].sum())) / N

    def end_round(self, minimum: Minimum) -> tuple[list[Step], str]:
        """The round's steps, the last one with the new Γ and σ². The search is over when a round and its update lower J by less than the tolerance
        times J's degrees of freedom, of which each is worth about a half.
        """
        steps = [(self.posterior(value), math.sqrt(self.variance)) for value in minimum.history[0]]
        status = minimum.status[0]
        if status == "diverged":
            return steps, status
        value = self.update(minimum.z, float(minimum.value))
        before, after = steps[0][0], self.posterior(value)
        steps[-1] = (after, math.sqrt(self.variance))
        freedom = 0.5 * self.count * (self.dimension + self.size)
        if before - after > self.spec.matching.tolerance * freedom:
            return steps, "max_iter"
        return steps, "converged" if status == "max_iter" else status

    def state(self) -> dict[str, Any]:
        names = {"weight": self.covariance.weight, "factor": self.covariance.factor.cpu().numpy()}
        return names | {"variance": self.variance, "noise_scale": self.noise_scale}

    def load(self, saved: Mapping[str, Any]) -> None:
        factor = torch.as_tensor(saved["factor"]).to(self.q)
        self.covariance = Covariance(float(saved["weight"]), factor, self._moved(factor))
        self.variance, self.noise_scale = float(saved["variance"]), float(saved["noise_scale"])

    def finish(self, rows: Sequence[Mapping[str, Any]], z: Tensor) -> list[dict[str, Any]]:
        """The subjects' rows, whose objective is the fit, with what they share and their momenta's part."""
        prior, data = self.noise_dof * self.noise_scale, sum(row["objective"] for row in rows)
        if prior > data:
            _log.warning(
                "atlas: the noise, %.3g, is more its prior's than the data's, which alone would say %.3g: give a smaller atlas.noise_prior (%g), "
                "or atlas.noise_std (the prior's, %.3g)",
                math.sqrt(self.variance), math.sqrt(data / (self.count * self.dimension)), self.spec.noise_prior, math.sqrt(self.noise_scale),
            )  # fmt: skip
        shared = {"noise_std": math.sqrt(self.variance), "gamma": 2 * self.variance / self.spec.momenta_std**2}
        terms = self.regularity(z)[0].tolist()
        return [{**row, **shared, "objective": row["objective"] + t} for row, t in zip(rows, terms, strict=True)]

    def estimate(self) -> BayesianEstimate:
        d = self.q.shape[1]
        return BayesianEstimate(
            noise_std=math.sqrt(self.variance),
            noise_dimension=self.dimension,
            weight=self.covariance.weight,
            factor=self.covariance.factor.view(-1, self.size // d, d).cpu().numpy(),
            unit=self.unit.cpu().numpy(),
            control_points=self.controls.cpu().numpy(),
            masses=self.masses.cpu().numpy(),
        )

    def _scaled(self, z: Tensor) -> Tensor:
        """a (N, m)."""
        return z[self.fit.n :].double().view(self.count, -1) / self.unit[:, None]

    def _moved(self, a: Tensor) -> Tensor:
        """G a (k, m), for no more rows than there are subjects."""
        d, rows = self.q.shape[1], self.fit.matching.rows
        b = self.q.new_zeros(self.count, self.size)
        b[: len(a)] = a
        b = b.view(-1, d)
        if self.scale is None:
            moved = self.kernel.product(self.q, rows, self.q, rows, b)
        else:
            moved = self.scale * self.kernel.product(self.q, rows, self.q, rows, self.scale * b)
        return moved.view(self.count, -1)[: len(a)]


def noise_dimension(template: Shape, spec: MatchingSpec) -> int:
    """Λ: of a residual between corresponding vertices, their coordinates; of a kernel norm, the numbers that tell fields apart at the attachment's
    (smallest) width: d, or 1 for a measure, in every cell of that size in the template's bounding box. σ² goes with 1/Λ.
    """
    n, d = template.points.shape
    if spec.attachment == "landmarks":
        return n * d
    cells = np.floor(np.ptp(template.points, axis=0) / min(spec.attachment_widths) + 1)
    return int(np.prod(cells)) * (1 if spec.attachment == "measure" else d)
