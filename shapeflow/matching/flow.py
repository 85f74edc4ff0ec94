"""The deformation of one matching as a map of space: any points forward, back, and on the way.

    φ: x(0) ↦ x(1),  x' = v(x)        φ⁻¹ by the reversed geodesic, from (q(1), −p(1))

Points ride passively: landmarks, the mesh at full resolution, a grid to look at. What they meet is the flow that the
matching computed, by its kernel, normalization, integrator and steps, so vertices of the source end where the matching
put them. φ⁻¹(φ(x)) = x to the integrator's order in the step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shapeflow.errors import ShapeflowError
from shapeflow.flow import jacobian_determinants
from shapeflow.matching.spec import MatchingSpec
from shapeflow.metric import Metric, metric
from shapeflow.ops import Radial
from shapeflow.ops.bound import Kernel
from shapeflow.ragged import Ragged
from shapeflow.shape import Shape
from shapeflow.shooting import Carried, Shot, shoot

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Flow:
    """Momenta (n, d) at control points (n, d) of masses (n,), and the spec they were estimated with. Mesh units."""

    control_points: Points
    momenta: Points
    masses: NDArray[np.float64]
    spec: MatchingSpec

    def __post_init__(self) -> None:
        q, p, mu = self.control_points, self.momenta, self.masses
        if q.ndim != 2 or p.shape != q.shape or mu.shape != q.shape[:1]:
            raise ShapeflowError(
                f"a flow needs momenta (n, d) at control points (n, d) of masses (n,); received {p.shape}, {q.shape} and {mu.shape}"
            )

    @classmethod
    def of(cls, source: Shape, control_points: Points, momenta: Points, spec: MatchingSpec) -> Flow:
        """The flow of entry b of a `MatchingResult`: Flow.of(sources[b], result.control_points[b], result.momenta[b], spec)."""
        q = np.asarray(control_points, dtype=np.float64)
        masses = source.masses() if spec.control_points == "vertices" else np.full(len(q), 1 / max(len(q), 1))
        return cls(q, np.asarray(momenta, dtype=np.float64), masses, spec)

    def with_steps(self, steps: int) -> Flow:
        """The same geodesic in finer (or coarser) steps."""
        return replace(self, spec=replace(self.spec, steps=steps))

    def forward(self, points: Points) -> Points:
        """φ(x) (m, d)."""
        q, p = self._start()
        return self._shoot(q, p, points).carried[0].cpu().numpy()

    def inverse(self, points: Points) -> Points:
        """φ⁻¹(x) (m, d): where what ends at x came from."""
        end = self._shoot(*self._start())
        return self._shoot(end.q, -end.p, points).carried[0].cpu().numpy()

    def path(self, points: Points) -> Points:
        """x at times 0, 1/steps, …, 1: (steps + 1, m, d)."""
        (q, p), x, steps = self._start(), self._tensor(points), self.spec.steps
        stops = [x]
        for _ in range(steps):
            # A step of 1/steps is a unit of time at momenta p/steps: v is linear in p, and ∂H/∂q quadratic.
            shot = self._shoot(q, p / steps, stops[-1], steps=1)
            q, p = shot.q, shot.p * steps
            stops.append(shot.carried[0])
        return torch.stack(stops).cpu().numpy()

    def jacobian(self, points: Points) -> NDArray[np.float64]:
        """det ∇φ (m,) of the discrete flow: ≤ 0 where it folds."""
        (q, p), x = self._start(), self._tensor(points)
        at = Carried(x, Ragged((0, len(x))))
        spec = self.spec
        found = jacobian_determinants(self._metric(), q, p, steps=spec.steps, integrator=spec.integrator, at=at)
        return found.cpu().numpy()

    def _start(self) -> tuple[Tensor, Tensor]:
        return self._tensor(self.control_points), self._tensor(self.momenta)

    def _tensor(self, values: Points | Tensor) -> Tensor:
        x = torch.as_tensor(values, dtype=torch.float64, device=self.spec.torch_device())
        if x.ndim != 2 or x.shape[1] != self.control_points.shape[1]:
            raise ShapeflowError(f"points must be (m, {self.control_points.shape[1]}); received {tuple(x.shape)}")
        return x

    def _shoot(self, q: Tensor, p: Tensor, points: Points | Tensor | None = None, steps: int | None = None) -> Shot:
        x = q[:0] if points is None else self._tensor(points)
        aboard, spec = Carried(x, Ragged((0, len(x)))), self.spec
        with torch.no_grad():
            return shoot(self._metric(), q, p, steps=steps or spec.steps, integrator=spec.integrator, carried=(aboard,))

    def _metric(self) -> Metric:
        spec, device = self.spec, self.spec.torch_device()
        width = torch.full((1,), spec.sigma, dtype=torch.float64, device=device)
        kernel = Kernel(str(Radial.parse(spec.kernel)), width, spec.resolved_backend())
        masses = torch.as_tensor(self.masses, dtype=torch.float64, device=device)
        return metric(kernel, Ragged((0, len(masses))), masses, spec.scaling())
