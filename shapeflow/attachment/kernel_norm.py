"""A = ‖S − T‖² = ⟨S, S⟩ − 2⟨S, T⟩ + ⟨T, T⟩ with ⟨S, T⟩ = Σ_ij k(z_i, z'_j) ⟨f_i, f'_j⟩: measures, currents and
varifolds by their features f at the centres z = c; oriented varifolds by their weights at z = (c, ℓu).

The three terms nearly cancel at a good match, so each is summed in double precision whatever the points are in.

Oriented varifolds: ⟨S, T⟩ = Σ_ij m_i m'_j exp(−|c_i − c'_j|²/σ²) exp(2(⟨u_i, u'_j⟩ − 1)/κ²). As |u − v|² = 2 − 2⟨u, v⟩ this is one Gaussian of width σ between
points of R^2d, with ℓ = σ/κ: no operator of its own.

Centres c, normals and features f are those of `features`; k is any radial kernel, a sum of widths included, its σ in
mesh units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shapeflow.attachment.base import Attachment
from shapeflow.attachment.features import FEATURES, centres_and_normals, directions
from shapeflow.batch import ShapeBatch
from shapeflow.ops.bound import Kernel
from shapeflow.ragged import Ragged

ORIENTED = "oriented_varifold"


@dataclass(frozen=True)
class KernelNorm(Attachment):
    """The squared dual norm of the difference, for B problems. What depends on the target alone is computed once."""

    name: str
    kernel: Kernel
    simplices: Tensor  # (M, 2 or 3 or 1) of the sources
    cells: Ragged
    target_cells: Ragged
    target_centres: Tensor
    target_features: Tensor
    target_norm: Tensor  # (B,) float64
    normal_length: Tensor | None = None  # (B,) mesh units: ℓ of the oriented varifold

    @staticmethod
    def between(
        name: str, kernel: Kernel, source: ShapeBatch, target: ShapeBatch, normal_length: Tensor | None = None
    ) -> KernelNorm:
        """`normal_length` for the oriented varifold and for it alone."""
        centres, features = parts(name, target.points, target.simplices, target.cells, normal_length)
        own = kernel.product(centres, target.cells, centres, target.cells, features)
        norm = _inner(features, own, target.cells)
        return KernelNorm(
            name, kernel, source.simplices, source.cells, target.cells, centres, features, norm, normal_length
        )

    def __call__(self, points: Tensor) -> Tensor:
        centres, features = parts(self.name, points, self.simplices, self.cells, self.normal_length)
        own = _Pairing.apply(centres, features, centres, features, self.kernel, self.cells, self.cells, 2)
        cross = _Pairing.apply(
            centres, features, self.target_centres, self.target_features, self.kernel, self.cells, self.target_cells, 1
        )
        return own - 2 * cross + self.target_norm

    def reference(self) -> Tensor:
        return self.target_norm


def parts(
    name: str, points: Tensor, simplices: Tensor, cells: Ragged, normal_length: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Positions (M, d), for oriented varifolds (M, 2d), and features (M, e) of simplices."""
    centres, normals = centres_and_normals(points, simplices)
    if normal_length is None:
        return centres, FEATURES[name](centres, normals)
    turned = cells.spread(normal_length)[:, None] * directions(normals, name)
    return torch.cat([centres, turned], 1), FEATURES["measure"](centres, normals)


class _Pairing(torch.autograd.Function):
    """⟨S, T⟩ (B,), whose value and gradient in S are one fused pass. `factor` 2: T is S itself, and by symmetry
    counts twice.
    """

    @staticmethod
    def forward(
        ctx, c: Tensor, f: Tensor, c2: Tensor, f2: Tensor, kernel: Kernel, rows: Ragged, columns: Ragged, factor: int
    ) -> Tensor:
        if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1]):
            return _inner(f, kernel.product(c, rows, c2, columns, f2), rows)
        v, g = kernel.fused(f, c, rows, c2, columns, f2)
        ctx.save_for_backward(v, g)
        ctx.rows, ctx.factor = rows, factor
        return _inner(f, v, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx, cotangent: Tensor):
        v, g = ctx.saved_tensors
        weight = ctx.factor * ctx.rows.spread(cotangent)[:, None].to(g.dtype)
        return weight * g, weight * v, None, None, None, None, None, None


def _inner(f: Tensor, v: Tensor, rows: Ragged) -> Tensor:
    """Σ_i ⟨f_i, v_i⟩ (B,), float64."""
    return rows.sum((f.double() * v.double()).sum(1))
