"""A = Σ_i |x_i − y_i|²: points in known correspondence, in squared mesh units."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from shapeflow.attachment.base import Attachment
from shapeflow.batch import ShapeBatch
from shapeflow.errors import ShapeflowError


@dataclass(frozen=True)
class Landmarks(Attachment):
    """Vertex i of the source belongs at vertex i of the target."""

    target: ShapeBatch

    @staticmethod
    def between(source: ShapeBatch, target: ShapeBatch) -> Landmarks:
        if source.rows != target.rows:
            pairs = [(a, b) for a, b in zip(source.rows.sizes, target.rows.sizes, strict=False) if a != b]
            raise ShapeflowError(
                f"the landmarks attachment needs as many points in the source as in the target; received {pairs[0] if pairs else 'another number of shapes'}. "
                "Use attachment=varifold for meshes that do not correspond"
            )
        return Landmarks(target)

    def __call__(self, points: Tensor) -> Tensor:
        return self.target.rows.sum((points - self.target.points).double().square().sum(1))

    def reference(self) -> Tensor:
        rows, y = self.target.rows, self.target.points.double()
        return rows.sum((y - rows.spread(rows.mean(y))).square().sum(1))
