"""A kernel with its widths and backend decided: what the layers above call, without the front door's checks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from shapeflow.ops import registry
from shapeflow.ops.backends import native_cpu
from shapeflow.ops.problem import Problem
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

    # Of points among themselves, where ⟨a_i, b_j⟩ = ⟨a_j, b_i⟩: force and reaction, so that a CPU meets each pair once. Not differentiable.

    def mutual_gradient(self, a: Tensor, x: Tensor, b: Tensor, rows: Ragged) -> Tensor:
        """Σ_j ⟨a_i, b_j⟩ ∇₁k(x_i, x_j)."""
        if self._meets_once(x):
            return native_cpu.mutual_gradient(a.contiguous(), x.contiguous(), b.contiguous(), self._among(rows))
        return self.gradient(a, x, rows, x, rows, b)

    def mutual_tangent(self, x: Tensor, dx: Tensor, a: Tensor, b: Tensor, rows: Ragged) -> tuple[Tensor, Tensor]:
        """Derivative of `product` and of that gradient when the points move by dx."""
        if self._meets_once(x):
            return native_cpu.mutual_tangent(
                x.contiguous(), dx.contiguous(), a.contiguous(), b.contiguous(), self._among(rows)
            )
        return self.tangent(x, dx, a, None, b, None, rows)

    def _meets_once(self, x: Tensor) -> bool:
        return self.backend == "native" and x.device.type == "cpu"

    def _among(self, rows: Ragged) -> Problem:
        return registry.problem_of(self.sigma, rows, rows, self.radial)

    def _tail(self, rows: Ragged, columns: Ragged):
        return self.sigma, rows, columns, self.radial, self.backend
