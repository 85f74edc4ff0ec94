"""What a demo cohort is made of. Lengths are mesh units: every template is about one unit long."""

from __future__ import annotations

from dataclasses import dataclass

from shapeflow.errors import ConfigError

KINDS = ("closed", "open", "curves")


@dataclass(frozen=True)
class DemoSpec:
    """A cohort of `n_subjects`: half of them `case`, half `control`; every second pair of subjects is meshed denser on one side.

    `effect`, `covariate_effect` and `noise` are the largest initial speeds of the group's mode, of the covariate's mode (per standard
    deviation of the covariate) and of each subject's own deformation, in mesh units: about the distance that a vertex moves.
    """

    kind: str = "closed"
    n_subjects: int = 8
    n_points: int = 160
    seed: int = 0
    effect: float = 0.15
    covariate_effect: float = 0.02
    noise: float = 0.04
    sigma: float = 0.3
    dense: bool = True
    pose: float = 0.0
    n_landmarks: int = 8

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"demo kind {self.kind!r} is unknown: write one of {', '.join(KINDS)}")
        for name, least in (("n_subjects", 2), ("n_points", 12), ("n_landmarks", 3)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"demo {name} = {value!r}: write a whole number of at least {least}")
        if self.n_landmarks > self.n_points:
            raise ConfigError(
                f"demo n_landmarks = {self.n_landmarks} exceeds n_points = {self.n_points}: ask for fewer landmarks"
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"demo seed = {self.seed!r}: write a whole number, zero or more")
        for name in ("effect", "covariate_effect", "noise", "pose"):
            value = getattr(self, name)
            if not 0 <= value <= 180:
                raise ConfigError(f"demo {name} = {value!r}: write a number, zero or more (pose: degrees, at most 180)")
        if not self.sigma > 0:
            raise ConfigError(f"demo sigma = {self.sigma!r}: write a positive kernel width, in mesh units")
