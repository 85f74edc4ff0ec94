"""How far a deformed shape is from its target: one interface, (N, d) points in, (B,) non-negative numbers out
(docs/attachments.md).
"""

from shapeflow.attachment.base import Attachment
from shapeflow.attachment.features import FEATURES
from shapeflow.attachment.kernel_norm import KernelNorm
from shapeflow.attachment.landmarks import Landmarks

ATTACHMENTS = ("landmarks", *FEATURES)

__all__ = ["ATTACHMENTS", "FEATURES", "Attachment", "KernelNorm", "Landmarks"]
