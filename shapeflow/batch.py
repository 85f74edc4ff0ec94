"""Shapes as tensors: B of them, concatenated, ready for the operators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shapeflow.errors import ShapeflowError
from shapeflow.ragged import Ragged
from shapeflow.shape import Shape


@dataclass(frozen=True)
class ShapeBatch:
    """`points` (N, d) laid out by `rows`; `simplices` (M, k), indices into `points`, laid out by `cells`; `masses`
    (N,), summing to one a shape.
    """

    points: Tensor
    rows: Ragged
    simplices: Tensor
    cells: Ragged
    masses: Tensor

    @staticmethod
    def of(
        shapes: Sequence[Shape], dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> ShapeBatch:
        kinds = {(s.points.shape[1], s.simplices.shape[1]) for s in shapes}
        if len(kinds) != 1:
            found = ", ".join(f"{k}-vertex simplices in {d}-D" for d, k in sorted(kinds)) or "none"
            raise ShapeflowError(
                f"a batch holds shapes of one kind (points, curves or surfaces, in 2-D or 3-D); received {found}"
            )
        rows = Ragged.of_sizes(len(s.points) for s in shapes)
        cells = Ragged.of_sizes(len(s.simplices) for s in shapes)
        simplices = np.concatenate([s.simplices + o for s, o in zip(shapes, rows.offsets, strict=False)])
        return ShapeBatch(
            torch.as_tensor(np.concatenate([s.points for s in shapes]), dtype=dtype, device=device),
            rows,
            torch.as_tensor(simplices, dtype=torch.long, device=device),
            cells,
            torch.as_tensor(np.concatenate([s.masses() for s in shapes]), dtype=dtype, device=device),
        )

    def select(self, problems: Iterable[int]) -> ShapeBatch:
        """The batch of a subset of its shapes, in the given order."""
        kept = list(problems)
        rows, points = self.rows.select(kept)
        cells, simplices = self.cells.select(kept)
        shift = torch.tensor([new - self.rows.offsets[b] for b, new in zip(kept, rows.offsets, strict=False)])
        moved = self.simplices[simplices] + cells.spread(shift)[:, None].to(self.simplices.device)
        return ShapeBatch(self.points[points], rows, moved, cells, self.masses[points])

    def mean_square_radius(self) -> Tensor:
        """(B,) mass-weighted mean squared distance to the barycentre: the square of the centroid size."""
        centre = self.rows.sum(self.masses[:, None] * self.points)
        return self.rows.sum(self.masses * (self.points - self.rows.spread(centre)).square().sum(1))
