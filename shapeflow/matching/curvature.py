"""How stiff an attachment is: its Gauss–Newton second derivative, seen by a few velocity fields.

A(q) = ‖S(q) − T‖² with S = Σ_i f_i δ_{c_i} has, where the shapes meet and for features that do not turn, the second
derivative ⟨u, M u⟩ in displacements u of the centres,

    M_ij = 2 ⟨f_i, f_j⟩ [ −(2/w²) h'(s) I − (4/w⁴) h''(s) z zᵀ ],     z = c_i − c_j,  s = |z|²/w²,  k = h(s).

It is positive, and depends on the source alone. A displacement that a smooth flow gives to neighbouring simplices is
nearly the same, so `CELLS` clusters of them stand for all: centres are averaged and features added, which is what a
kernel wider than a cluster sees of them anyway.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shapeflow.attachment import FEATURES, Attachment, KernelNorm, Landmarks
from shapeflow.attachment.features import centres_and_normals
from shapeflow.matching.control import farthest
from shapeflow.ops import Radial

CELLS = 400

Basis = Callable[[Tensor], Tensor]  # points (f, d) -> (f, m): what a unit momentum at each of m points moves them by


def stiffness(attachment: Attachment, problem: int, points: Tensor, basis: Basis) -> Tensor | None:
    """T (m, d, m, d) = Bᵀ M B with B = basis(·), of one problem whose batch's compared points are `points` (N, d); None where the attachment's
    curvature is not known.
    """
    if isinstance(attachment, Landmarks):
        b = basis(points[list(attachment.target.rows.slices())[problem]].double())
        eye = torch.eye(points.shape[1], dtype=b.dtype, device=b.device)
        return 2 * torch.einsum("fm,fn,de->mdne", b, b, eye)
    if not isinstance(attachment, KernelNorm):
        return None
    simplices = attachment.simplices[list(attachment.cells.slices())[problem]]
    centres, features = _clusters(attachment.name, points.double(), simplices)
    b, d = basis(centres), points.shape[1]
    radial, width = Radial.parse(attachment.kernel.radial), float(attachment.kernel.sigma[problem])
    z = centres[:, None] - centres
    s, inner = z.square().sum(-1) / width**2, 2 * features @ features.T
    along, across = inner * radial.curvature(s) * (-4 / width**4), inner * radial.slope(s) * (-2 / width**2)
    out = b.new_empty(b.shape[1], d, b.shape[1], d)
    for i in range(d):
        for j in range(i, d):
            block = along * z[..., i] * z[..., j]
            out[:, i, :, j] = b.T @ ((block + across if i == j else block) @ b)
            out[:, j, :, i] = out[:, i, :, j].T
    return out


def _clusters(name: str, points: Tensor, simplices: Tensor) -> tuple[Tensor, Tensor]:
    """At most CELLS centres (c, d) and the sums of their simplices' features (c, e)."""
    centres, normals = centres_and_normals(points, simplices)
    features, weights = FEATURES[name](centres, normals), FEATURES["measure"](centres, normals)
    if len(centres) <= CELLS:
        return centres, features
    heads = centres[torch.as_tensor(farthest(centres.cpu().numpy(), CELLS), device=centres.device)]
    owner = torch.cdist(centres, heads).argmin(1)

    def gathered(values: Tensor) -> Tensor:
        return values.new_zeros(CELLS, values.shape[1]).index_add(0, owner, values)

    return gathered(weights * centres) / gathered(weights), gathered(features)
