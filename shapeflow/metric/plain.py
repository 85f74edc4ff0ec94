"""The plain metric: a velocity is a sum over all particles."""

from __future__ import annotations

from torch import Tensor

from shapeflow.metric.base import Metric
from shapeflow.warm import Warm


class PlainMetric(Metric):
    """G = K."""

    def value(self, q: Tensor, p: Tensor, warm: Warm | None) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        return *self.kernel.fused(p, q, self.rows, q, self.rows, p), ()

    def adjoint(
        self, q: Tensor, p: Tensor, kept: tuple[Tensor, ...], V: Tensor, h: Tensor, warm: Warm | None
    ) -> tuple[Tensor, Tensor]:
        along_v, along_g = self.kernel.tangent(q, h, p, V, p, V, self.rows)
        return along_g, along_v

    def weights(self, q: Tensor, warm: Warm | None = None) -> None:
        return None
