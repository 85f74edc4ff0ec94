"""Deterministic atlas: a template and one deformation a subject, estimated together."""

from shapeflow.atlas.estimate import AtlasResult, closest_subject, estimate_atlas
from shapeflow.atlas.initial import average, initial_template
from shapeflow.atlas.spec import AtlasSpec

__all__ = ["AtlasResult", "AtlasSpec", "average", "closest_subject", "estimate_atlas", "initial_template"]
