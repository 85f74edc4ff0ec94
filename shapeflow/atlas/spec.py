"""What an atlas estimation is."""

from __future__ import annotations

from dataclasses import dataclass

from shapeflow.errors import ConfigError
from shapeflow.matching import MatchingSpec

DETERMINISTIC, BAYESIAN = MODELS = ("deterministic", "bayesian")


@dataclass(frozen=True)
class AtlasSpec:
    """The metric and attachment of `matching`; at most `max_iter` iterations, in rounds of `round_iter` after each of
    which a checkpoint is written.

    The template moves as momenta of width `template_width` would move it (mesh units; the deformation's σ unless
    said): as a surface, whose triangles stay as good as they were.

    `model="bayesian"` estimates the noise and the momenta's covariance too, and `matching.gamma` has no part in it (`atlas.bayesian`): their priors
    count as `momenta_prior` and `noise_prior` times the data do (ν_Γ = N · momenta_prior, ν_ε = NΛ · noise_prior). They expect momenta of the size
    `momenta_std` ρ in each of their coordinates, and noise of the size `noise_std` σ₀ (what separates the initial template from the subjects, unless said).
    """

    matching: MatchingSpec
    max_iter: int = 100
    round_iter: int = 25
    template_width: float | None = None
    model: str = DETERMINISTIC
    momenta_prior: float = 0.001
    momenta_std: float = 1.0
    noise_prior: float = 0.01
    noise_std: float | None = None

    def __post_init__(self) -> None:
        if self.max_iter < 1 or self.round_iter < 1:
            raise ConfigError(
                f"an atlas needs at least one iteration; received max_iter={self.max_iter}, round_iter={self.round_iter}"
            )
        if self.template_width is not None and not self.template_width > 0:
            raise ConfigError(f"atlas.template_width must be a positive length; received {self.template_width}")
        if self.model not in MODELS:
            raise ConfigError(f"unknown atlas.model {self.model!r}: write one of {', '.join(MODELS)}")
        for name in ("momenta_prior", "momenta_std", "noise_prior", "noise_std"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"atlas.{name} must be positive; received {value}")
        if self.model == BAYESIAN:
            check_is_a_norm(self.matching.attachment)


def check_is_a_norm(attachment: str) -> None:
    """A Gaussian model of the noise needs the squared norm of a difference."""
    if attachment == "sinkhorn":
        raise ConfigError(
            "atlas.model=bayesian needs an attachment that is a squared norm, whose noise has a variance; attachment=sinkhorn is a cost of transport: "
            "write attachment=varifold, current, measure, oriented_varifold or landmarks, or atlas.model=deterministic"
        )
