"""From the words of a configuration to an attachment."""

from __future__ import annotations

from shapeflow.attachment.base import Attachment, Mixture
from shapeflow.attachment.features import FEATURES
from shapeflow.attachment.kernel_norm import ORIENTED, KernelNorm
from shapeflow.attachment.sinkhorn import SINKHORN, SinkhornDivergence
from shapeflow.batch import ShapeBatch
from shapeflow.errors import ConfigError, ShapeflowError
from shapeflow.ops import Radial
from shapeflow.ops.bound import Kernel
from shapeflow.shape import KINDS

GAUSSIAN_ONLY = (ORIENTED, SINKHORN)
ATTACHMENTS = ("landmarks", *FEATURES, *GAUSSIAN_ONLY)


def compare(
    name: str,
    kernel: Kernel,
    source: ShapeBatch,
    target: ShapeBatch,
    *,
    kappa: float = 1.0,
    reach: float | None = None,
    normal_length: float | None = None,
) -> Attachment:
    """Any attachment between simplices (landmarks compare points). `kernel` has the widths, for sinkhorn the blurs.

    Widths whose terms cannot share a pass, those of oriented varifolds and of transport, become a mixture. `kappa` is the oriented varifold's, without unit;
    `reach` and `normal_length`, in mesh units, are transport's.
    """
    if source.simplices.shape[1] != target.simplices.shape[1]:
        kinds = [KINDS[shape.simplices.shape[1]] for shape in (source, target)]
        raise ShapeflowError(
            f"source and target must both be points, curves or surfaces; received {' and '.join(kinds)}"
        )
    if name in FEATURES:
        return KernelNorm.between(name, kernel, source, target)
    if name not in GAUSSIAN_ONLY:
        raise ShapeflowError(f"unknown attachment {name!r}: write one of {', '.join(ATTACHMENTS)}")

    def part(width) -> Attachment:
        if name == SINKHORN:
            return SinkhornDivergence.between(width, source, target, kernel.backend, reach, normal_length)
        return KernelNorm.between(name, Kernel("gaussian", width, kernel.backend), source, target, width / kappa)

    terms = check_gaussian(name, kernel.radial).terms
    return Mixture(tuple(term.weight for term in terms), tuple(part(term.ratio * kernel.sigma) for term in terms))


def check_gaussian(name: str, radial: str | Radial) -> Radial:
    """The kernel of an attachment, refused where it has to be a sum of gaussians and is not."""
    parsed = Radial.parse(radial)
    if name in GAUSSIAN_ONLY and any(term.name != "gaussian" for term in parsed.terms):
        raise ConfigError(
            f"attachment {name} needs kernel gaussian, or a sum of gaussians; received {str(parsed)!r}. "
            "Other kernels go with attachment=varifold, current or measure"
        )
    return parsed
