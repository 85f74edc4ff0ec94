"""What a backend needs to know besides the tensors: which kernel, which widths, which rows see which columns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from shapeflow.ops.radial import Radial
from shapeflow.ragged import Ragged


@dataclass(frozen=True)
class Problem:
    """A batch of B independent kernel products. Rows of problem b see the columns of problem b only."""

    radial: Radial
    sigma: Tensor  # (B,) mesh units, dtype and device of the points
    rows: Ragged
    columns: Ragged

    def among(self, x: Tensor, y: Tensor) -> bool:
        """Whether the rows x and the columns y are one set of points."""
        return x.data_ptr() == y.data_ptr() and self.rows == self.columns
