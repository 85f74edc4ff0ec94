"""The tangent space at the template: where momenta are vectors and the kernel metric is the inner product.

    ⟨p, p'⟩ = Σ_i p_i · (G_q p')_i,      G_q the cometric at the template: K_q, or its normalization

A subject is its momentum p_s on the template's control points q. Everything linear (means, principal components, regressions, the
classifiers) needs the N × N Gram matrix of these inner products and nothing else: never a d·n-dimensional covariance, and never raw
coordinates, in which a densely sampled region would weigh more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shapeflow.errors import ShapeflowError
from shapeflow.matching import MatchingSpec
from shapeflow.metric import Metric, metric
from shapeflow.normalization import Normalization
from shapeflow.ops import Radial, resolve
from shapeflow.ops.bound import Kernel
from shapeflow.ragged import Ragged
from shapeflow.shape import Shape
from shapeflow.shooting import Carried, Shot, shoot
from shapeflow.warm import Warm

_BATCH = 16  # geodesics shot at once: memory stays that of so many templates


@dataclass(frozen=True)
class TangentSpace:
    """`template`, `control_points` (n, d) where momenta live (the template's vertices or not) and their `masses` (n,). Lengths: mesh units."""

    template: Shape
    control_points: NDArray[np.float64]
    masses: NDArray[np.float64]
    kernel: str
    sigma: float
    normalization: str = "none"
    normalization_iterations: int = 5
    steps: int = 10
    integrator: str = "ralston"

    def __post_init__(self) -> None:
        n = len(self.control_points)
        if self.masses.shape != (n,) or self.control_points.shape[1] != self.template.points.shape[1]:
            raise ShapeflowError(
                f"{n} control points in {self.control_points.shape[1]}-D with masses {self.masses.shape} do not fit a template in "
                f"{self.template.points.shape[1]}-D: one mass a control point, one dimension"
            )

    @classmethod
    def of(cls, template: Shape, control_points: NDArray, masses: NDArray, spec: MatchingSpec) -> TangentSpace:
        """The space of an estimation with `spec`: its metric and its integrator."""
        return cls(
            template=template.replace(point_data={}),
            control_points=np.asarray(control_points, dtype=np.float64),
            masses=np.asarray(masses, dtype=np.float64),
            kernel=spec.kernel,
            sigma=spec.sigma,
            normalization=spec.normalization,
            normalization_iterations=spec.scaling().iterations,
            steps=spec.steps,
            integrator=spec.integrator,
        )

    @property
    def on_vertices(self) -> bool:
        return self.control_points.shape == self.template.points.shape and bool(
            (self.control_points == self.template.points).all()
        )

    def velocities(self, momenta: NDArray) -> NDArray[np.float64]:
        """G_q p for momenta (N, n, d), at the control points: (N, n, d)."""
        space, q = self.metric(1), torch.as_tensor(self.control_points)
        warm = Warm()
        with torch.no_grad():
            return np.stack([space.field(q, torch.as_tensor(p), warm)[0].numpy() for p in self._checked(momenta)])

    def gram(self, momenta: NDArray) -> NDArray[np.float64]:
        """Inner products (N, N); symmetrised, since rounding is not."""
        p = self._checked(momenta)
        products = p.reshape(len(p), -1) @ self.velocities(p).reshape(len(p), -1).T
        return 0.5 * (products + products.T)

    def shapes(self, momenta: NDArray) -> list[Shape]:
        """The template carried by the geodesics of momenta (N, n, d): N shapes with its simplices."""
        p = self._checked(momenta)
        return [shape for i in range(0, len(p), _BATCH) for shape in self._shoot(p[i : i + _BATCH])]

    def carry(self, momenta: NDArray, points: Sequence[NDArray]) -> list[NDArray[np.float64]]:
        """Where the geodesics of momenta (N, n, d) take points (l_s, d) of the template, a set for each."""
        return self._carried(momenta, points, back=False)

    def pull_back(self, momenta: NDArray, points: Sequence[NDArray]) -> list[NDArray[np.float64]]:
        """Where points (l_s, d) of the shapes at the ends of the geodesics of momenta (N, n, d) come from on the template.

        A geodesic run backwards is the geodesic of the reversed momentum at its end.
        """
        return self._carried(momenta, points, back=True)

    def _carried(self, momenta: NDArray, points: Sequence[NDArray], back: bool) -> list[NDArray[np.float64]]:
        p, ends = self._checked(momenta), []
        for i in range(0, len(p), _BATCH):
            some = points[i : i + _BATCH]
            aboard = Carried(torch.as_tensor(np.concatenate(some)), Ragged.of_sizes([len(x) for x in some]))
            q0, p0 = self._start(p[i : i + _BATCH])
            if back:
                ahead = self._integrate(q0, p0, len(some))
                q0, p0 = ahead.q, -ahead.p
            moved = self._integrate(q0, p0, len(some), aboard).carried[0].numpy()
            ends += [moved[piece] for piece in aboard.rows.slices()]
        return ends

    def _shoot(self, p: NDArray) -> list[Shape]:
        n = self.template.n_points
        mesh = Carried(torch.as_tensor(np.tile(self.template.points, (len(p), 1))), Ragged.of_sizes([n] * len(p)))
        shot = self._integrate(*self._start(p), len(p), *(() if self.on_vertices else (mesh,)))
        ends = (shot.q if self.on_vertices else shot.carried[0]).numpy().reshape(len(p), n, -1)
        return [self.template.replace(points=end, point_data={}) for end in ends]

    def _start(self, p: NDArray) -> tuple[Tensor, Tensor]:
        """Positions and momenta of checked momenta (N, n, d), one below the other."""
        return torch.as_tensor(np.tile(self.control_points, (len(p), 1))), torch.as_tensor(p.reshape(-1, p.shape[2]))

    def _integrate(self, q: Tensor, p: Tensor, count: int, *aboard: Carried) -> Shot:
        with torch.no_grad():
            return shoot(self.metric(count), q, p, steps=self.steps, integrator=self.integrator, carried=aboard)

    def metric(self, count: int = 1) -> Metric:
        """The cometric for `count` configurations of the control points."""
        rows = Ragged.of_sizes([len(self.control_points)] * count)
        width = torch.full((count,), self.sigma, dtype=torch.float64)
        kernel = Kernel(str(Radial.parse(self.kernel)), width, resolve(None, torch.device("cpu")))
        masses = torch.as_tensor(np.tile(self.masses, count))
        return metric(kernel, rows, masses, Normalization(self.normalization, iterations=self.normalization_iterations))

    def _checked(self, momenta: NDArray) -> NDArray[np.float64]:
        p = np.ascontiguousarray(momenta, dtype=np.float64)
        if p.ndim != 3 or p.shape[1:] != self.control_points.shape:
            raise ShapeflowError(
                f"momenta must be (subjects, {', '.join(map(str, self.control_points.shape))}); received {p.shape}"
            )
        if not np.isfinite(p).all():
            raise ShapeflowError("momenta are not finite: leave out the subjects whose registration failed")
        return p
