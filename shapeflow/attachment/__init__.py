"""How far a deformed shape is from its target: one interface, (N, d) points in, (B,) non-negative numbers out
(docs/attachments.md).
"""

from shapeflow.attachment.base import Attachment, Mixture
from shapeflow.attachment.build import ATTACHMENTS, check_gaussian, compare
from shapeflow.attachment.features import FEATURES
from shapeflow.attachment.kernel_norm import KernelNorm
from shapeflow.attachment.landmarks import Landmarks
from shapeflow.attachment.sinkhorn import SinkhornDivergence

__all__ = [
    "ATTACHMENTS",
    "FEATURES",
    "Attachment",
    "KernelNorm",
    "Landmarks",
    "Mixture",
    "SinkhornDivergence",
    "check_gaussian",
    "compare",
]
