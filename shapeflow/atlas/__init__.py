"""Deterministic atlas: a template and one deformation a subject, estimated together."""

from shapeflow.atlas.estimate import AtlasResult, closest_subject, estimate_atlas
from shapeflow.atlas.spec import AtlasSpec

__all__ = ["AtlasResult", "AtlasSpec", "closest_subject", "estimate_atlas"]
