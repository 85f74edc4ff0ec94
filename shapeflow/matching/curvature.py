"""How stiff an attachment is: its Gauss–Newton second derivative up to a factor, seen by a few velocity fields.

A(q) = ‖S(q) − T‖² with S = Σ_i f_i δ_{z_i} has, where the shapes meet and for features and normals that do not turn,
the second derivative ⟨u, M u⟩ in displacements u of the centres,

    M_ij = 2 ⟨f_i, f_j⟩ [ −(2/w²) h'(s) I − (4/w⁴) h''(s) r rᵀ ],     s = |z_i − z_j|²/w²,  r = c_i − c_j,  k = h(s),

with z = c, or (c, ℓu) for oriented varifolds. It is positive, and depends on the source alone. A displacement that a
smooth flow gives to neighbouring simplices is nearly the same, so `CELLS` clusters of them stand for all: positions
are averaged and features added, which is what a kernel wider than a cluster sees of them anyway.

Landmarks and transport plans are springs: M_ij ∝ δ_ij, weighted by the points' shares.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shapeflow.attachment import FEATURES, Attachment, KernelNorm, Landmarks
from shapeflow.attachment.base import Mixture
from shapeflow.attachment.features import centres_and_normals
from shapeflow.attachment.kernel_norm import parts
from shapeflow.attachment.sinkhorn import SinkhornDivergence
from shapeflow.ops import Radial
from shapeflow.ragged import Ragged
from shapeflow.sampling import farthest_points

CELLS = 400

Basis = Callable[[Tensor], Tensor]  # points (f, d) -> (f, m): what a unit momentum at each of m points moves them by


def stiffness(attachment: Attachment, problem: int, points: Tensor, basis: Basis) -> Tensor | None:
    """T (m, d, m, d) = Bᵀ M B with B = basis(·), of one problem whose batch's compared points are `points` (N, d); None where the attachment's
    curvature is not known.
    """
    if isinstance(attachment, Mixture):
        every = [stiffness(part, problem, points, basis) for part in attachment.parts]
        known = [w * t for w, t in zip(attachment.weights, every, strict=True) if t is not None]
        return torch.stack(known).sum(0) if known else None
    if isinstance(attachment, Landmarks):
        mine = points[list(attachment.target.rows.slices())[problem]].double()
        return _springs(basis(mine), torch.ones_like(mine[:, :1]), points.shape[1])
    if not isinstance(attachment, KernelNorm | SinkhornDivergence):
        return None
    simplices = attachment.simplices[list(attachment.cells.slices())[problem]]
    if isinstance(attachment, SinkhornDivergence):
        centres, normals = centres_and_normals(points.double(), simplices)
        return _springs(basis(centres), FEATURES["measure"](centres, normals), points.shape[1])
    positions, features = _clusters(attachment, problem, points.double(), simplices)
    d = points.shape[1]
    b = basis(positions[:, :d])
    radial, width = Radial.parse(attachment.kernel.radial), float(attachment.kernel.sigma[problem])
    z = positions[:, None] - positions
    s, inner = z.square().sum(-1) / width**2, 2 * features @ features.T
    along, across = inner * radial.curvature(s) * (-4 / width**4), inner * radial.slope(s) * (-2 / width**2)
    out = b.new_empty(b.shape[1], d, b.shape[1], d)
    for i in range(d):
        for j in range(i, d):
            block = along * z[..., i] * z[..., j]
            out[:, i, :, j] = b.T @ ((block + across if i == j else block) @ b)
            out[:, j, :, i] = out[:, i, :, j].T
    return out


def _springs(b: Tensor, weights: Tensor, d: int) -> Tensor:
    return 2 * torch.einsum("fm,fn,de->mdne", b, weights * b, torch.eye(d).to(b))


def _clusters(attachment: KernelNorm, problem: int, points: Tensor, simplices: Tensor) -> tuple[Tensor, Tensor]:
    """At most CELLS positions (c, d or 2d) and the sums of their simplices' features (c, e)."""
    length = None if attachment.normal_length is None else attachment.normal_length[problem : problem + 1].double()
    positions, features = parts(attachment.name, points, simplices, Ragged((0, len(simplices))), length)
    if len(positions) <= CELLS:
        return positions, features
    heads = positions[torch.as_tensor(farthest_points(positions.cpu().numpy(), CELLS), device=positions.device)]
    owner = torch.cdist(positions, heads).argmin(1)
    weights = FEATURES["measure"](*centres_and_normals(points, simplices))

    def gathered(values: Tensor) -> Tensor:
        return values.new_zeros(CELLS, values.shape[1]).index_add(0, owner, values)

    return gathered(weights * positions) / gathered(weights), gathered(features)
