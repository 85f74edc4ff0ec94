"""Atlases, deterministic and Bayesian: a template and one deformation a subject, estimated together."""

from shapeflow.atlas.estimate import AtlasResult, closest_subject, estimate_atlas
from shapeflow.atlas.initial import average, initial_template
from shapeflow.atlas.landmarks import TemplateLandmarks, template_landmarks
from shapeflow.atlas.spec import AtlasSpec
from shapeflow.atlas.tangent import TangentSpace

__all__ = [
    "AtlasResult",
    "AtlasSpec",
    "TangentSpace",
    "TemplateLandmarks",
    "average",
    "closest_subject",
    "estimate_atlas",
    "initial_template",
    "template_landmarks",
]
