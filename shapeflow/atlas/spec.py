"""What an atlas estimation is."""

from __future__ import annotations

from dataclasses import dataclass

from shapeflow.errors import ConfigError
from shapeflow.matching import MatchingSpec


@dataclass(frozen=True)
class AtlasSpec:
    """The metric and attachment of `matching`; at most `max_iter` iterations, in rounds of `round_iter` after each of
    which a checkpoint is written.

    The template moves as momenta of width `template_width` would move it (mesh units; the deformation's σ unless
    said): as a surface, whose triangles stay as good as they were.
    """

    matching: MatchingSpec
    max_iter: int = 100
    round_iter: int = 25
    template_width: float | None = None

    def __post_init__(self) -> None:
        if self.max_iter < 1 or self.round_iter < 1:
            raise ConfigError(
                f"an atlas needs at least one iteration; received max_iter={self.max_iter}, round_iter={self.round_iter}"
            )
        if self.template_width is not None and not self.template_width > 0:
            raise ConfigError(f"atlas.template_width must be a positive length; received {self.template_width}")
