"""A kernel with its widths and backend decided: what the layers above call, without the front door's checks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from shapeflow.ops import registry
from shapeflow.ragged import Ragged


@dataclass(frozen=True)
class Kernel:
    """k(x, y) for B problems. `sigma` (B,) in mesh units."""

    radial: str
    sigma: Tensor
    backend: str

    def product(self, x: Tensor, rows: Ragged, y: Tensor, columns: Ragged, b: Tensor) -> Tensor:
        """Σ_j k(x_i, y_j) b_j."""
        return registry.product(x, y, b, *self._tail(rows, columns))

    def gradient(self, a: Tensor, x: Tensor, rows: Ragged, y: Tensor, columns: Ragged, b: Tensor) -> Tensor:
        """Σ_j ⟨a_i, b_j⟩ ∇₁k(x_i, y_j)."""
        return registry.gradient(a, x, y, b, *self._tail(rows, columns))

    def fused(self, a: Tensor, x: Tensor, rows: Ragged, y: Tensor, columns: Ragged, b: Tensor) -> tuple[Tensor, Tensor]:
        """Both sums."""
        return registry.fused(a, x, y, b, *self._tail(rows, columns))

    def tangent(
        self, x: Tensor, dx: Tensor, a: Tensor, da: Tensor | None, b: Tensor, db: Tensor | None, rows: Ragged
    ) -> tuple[Tensor, Tensor]:
        """Derivative of `fused` when the points move by dx, as rows and as columns."""
        return registry.tangent(x, dx, a, da, x, dx, b, db, *self._tail(rows, rows))

    def _tail(self, rows: Ragged, columns: Ragged):
        return self.sigma, rows, columns, self.radial, self.backend
