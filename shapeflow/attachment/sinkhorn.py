"""Optimal transport as an attachment: the Sinkhorn divergence of `transport` between simplices as weighted points.

Points are the centres c, or (c, ℓu) with unit normals u, so that turning a normal over costs as much as moving by 2ℓ.
Balanced (no reach): weights are shares of the shape's own area and A is half a mean squared distance. With a `reach`
they are areas over the target's whole area, and what has no counterpart within the reach is created or destroyed: for
partial surfaces. Computed in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shapeflow.attachment.base import Attachment
from shapeflow.attachment.features import centres_and_normals, directions, measure
from shapeflow.attachment.transport import Divergence, Points, Target, Transport
from shapeflow.batch import ShapeBatch
from shapeflow.ragged import Ragged

SINKHORN = "sinkhorn"


@dataclass(frozen=True)
class SinkhornDivergence(Attachment):
    """S(source, target) in squared mesh units, for B problems."""

    transport: Transport
    simplices: Tensor
    cells: Ragged
    target: Target
    unit: Tensor  # (B,) the target's area: with a reach, a weight of one
    origin: Tensor  # (B, d) subtracted from positions: exponents lose digits far from zero
    normal_length: float | None

    @staticmethod
    def between(
        blur: Tensor,
        source: ShapeBatch,
        target: ShapeBatch,
        backend: str,
        reach: float | None = None,
        normal_length: float | None = None,
    ) -> SinkhornDivergence:
        """`blur` (B,), `reach` and `normal_length` in mesh units."""
        centres, normals = centres_and_normals(target.points.double(), target.simplices)
        area = measure(centres, normals)[:, 0]
        unit = target.cells.sum(area)
        origin = target.cells.sum(area[:, None] * centres) / unit[:, None]
        points = _weighted(target.points, target.simplices, target.cells, origin, normal_length, unit)
        slices = zip(source.rows.slices(), target.rows.slices(), strict=True)
        corners = [torch.cat([source.points[i], target.points[j]]) for i, j in slices]
        diameter = torch.stack([(c.amax(0) - c.amin(0)).norm() for c in corners])
        transport = Transport.of(blur.double(), reach, diameter.double(), backend)
        on_target = transport.target(points)
        return SinkhornDivergence(transport, source.simplices, source.cells, on_target, unit, origin, normal_length)

    def __call__(self, points: Tensor) -> Tensor:
        balanced = self.transport.inverse_rho == 0
        source = _weighted(
            points, self.simplices, self.cells, self.origin, self.normal_length, None if balanced else self.unit
        )
        return Divergence.apply(source.x, source.weights, self.cells, self.target, self.transport)  # type: ignore[no-any-return]

    def reference(self) -> Tensor:
        """½ the variance of the target: what transport to its barycentre costs."""
        d, rows, w = self.origin.shape[1], self.target.points.rows, self.target.points.weights
        return 0.5 * rows.sum(w * self.target.points.x[:, :d].square().sum(1))

    def waits(self) -> str | None:
        return "optimal transport takes as many steps as its marginals need"


def _weighted(
    points: Tensor,
    simplices: Tensor,
    cells: Ragged,
    origin: Tensor,
    normal_length: float | None,
    unit: Tensor | None,
) -> Points:
    """Weights are shares of `unit` (B,), of the shape's own area where there is none."""
    centres, normals = centres_and_normals(points.double(), simplices)
    area = measure(centres, normals)[:, 0]
    whole = cells.sum(area) if unit is None else unit
    x = centres - cells.spread(origin)
    if normal_length is not None:
        x = torch.cat([x, normal_length * directions(normals, SINKHORN)], 1)
    return Points(x, area / cells.spread(whole), cells)
