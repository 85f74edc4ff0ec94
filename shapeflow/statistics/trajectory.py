"""Geodesic regression: the one geodesic through the cohort that follows a measurement.

    minimise over the template q and the momentum p      mean_s [ t_s² γ H(q, p) / R_s² + A(φ^p_{t_s}(q), T_s) / ‖T_s‖² ],
    t_s = (x_s − x̄) / sd(x)

The template is the shape at the mean of the measurement and p the change over one standard deviation (Fletcher 2013; Fishbaugh et al.
2017). A geodesic at time t is the one of tp at time 1, so this is the atlas problem with all momenta tied to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shapeflow.atlas import AtlasSpec
from shapeflow.atlas.objective import AtlasObjective
from shapeflow.atlas.tangent import TangentSpace
from shapeflow.errors import ShapeflowError
from shapeflow.matching.energy import Problem
from shapeflow.optimize import Objective, minimize
from shapeflow.ragged import Ragged
from shapeflow.shape import Shape


@dataclass(frozen=True)
class Trajectory:
    """`space` at the shape of the mean measurement, `momentum` (n, d) of one standard deviation; `residual` and `residual_of_mean` are the
    mean attachments with and without the trajectory."""

    space: TangentSpace
    momentum: NDArray[np.float64]
    mean: float
    deviation: float
    residual: float
    residual_of_mean: float
    status: str
    history: tuple[float, ...]

    @property
    def explained(self) -> float:
        """Share of the attachment at the mean shape that following the measurement removes."""
        return 1.0 - self.residual / self.residual_of_mean if self.residual_of_mean > 0 else float("nan")

    def at(self, values: Sequence[float]) -> list[Shape]:
        """Shapes expected at values of the measurement."""
        times = (np.asarray(values, dtype=np.float64) - self.mean) / self.deviation
        return self.space.shapes(times[:, None, None] * self.momentum)


def geodesic_regression(
    template: Shape, subjects: Sequence[Shape], values: Sequence[float], spec: AtlasSpec
) -> Trajectory:
    """The trajectory of `subjects` along a measurement, from an initial `template` (their atlas, or one of them)."""
    x = np.asarray(values, dtype=np.float64)
    if x.shape != (len(subjects),) or not np.isfinite(x).all():
        raise ShapeflowError(
            f"a geodesic regression needs one finite number a subject; received {x.shape} for {len(subjects)} subjects"
        )
    if len(subjects) < 3 or x.std() <= 0:
        raise ShapeflowError("a geodesic regression needs three subjects or more whose measurement varies")
    m = spec.matching
    problems = [Problem(template, s, m) for s in subjects]
    base = AtlasObjective(template, subjects, problems, spec.template_width or m.sigma)
    objective = _Tied(base, torch.as_tensor((x - x.mean()) / x.std()).to(base.matching.q0))
    z = objective.start()
    minimum = minimize(objective, z, max_iter=spec.max_iter, tolerance=m.tolerance, memory=m.memory)
    points, p = (t.double().cpu().numpy() for t in objective.split(minimum.z))
    final = template.replace(points=points, point_data={})
    controls = points if base.matching.on_vertices else base.matching.q0[: len(p)].double().cpu().numpy()
    masses = base.matching.metric.masses[: len(p)].double().cpu().numpy()
    space = TangentSpace.of(final, controls, masses, m)
    still = torch.cat([minimum.z[: base.n], torch.zeros_like(minimum.z[base.n :])])
    return Trajectory(
        space, p, float(x.mean()), float(x.std()), objective.attachment(minimum.z), objective.attachment(still),
        minimum.status[0], minimum.history[0],
    )  # fmt: skip


class _Tied(Objective):
    """The atlas energy with momenta t_s p: a linear change of unknowns, `spread`, and its adjoint, `gather`."""

    def __init__(self, base: AtlasObjective, times: Tensor) -> None:
        self.base, self.times = base, times
        self.controls = base.matching.q0.shape[0] // base.count
        self.rows = Ragged((0, base.n + self.controls))

    def start(self) -> Tensor:
        return torch.cat([self.base.points, torch.zeros_like(self.base.matching.q0[: self.controls])])

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z[: self.base.n], z[self.base.n :]

    def spread(self, z: Tensor) -> Tensor:
        template, p = self.split(z)
        return torch.cat([template, (self.times[:, None, None] * p).reshape(-1, p.shape[1])])

    def gather(self, g: Tensor) -> Tensor:
        template, p = g[: self.base.n], g[self.base.n :]
        tied = (self.times[:, None, None] * p.reshape(self.base.count, self.controls, -1)).sum(0)
        return torch.cat([template, tied])

    def evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.base.evaluate(self.spread(z))
        return value, self.gather(gradient)

    def select(self, problems: Sequence[int]) -> _Tied:
        return self

    def noise(self, value: Tensor) -> Tensor:
        return self.base.noise(value.expand(self.base.count) if value.numel() == 1 else value)

    def precondition(self, gradient: Tensor) -> Tensor:
        # the times have mean zero and square one: no common mode, and the weight of one subject
        template, p = self.split(gradient)
        return torch.cat([self.base.template_step(template), self.base.matching.hessian().typical(p)])

    def first_step(self, z: Tensor, value: Tensor, slope: Tensor, direction: Tensor) -> Tensor:
        return self.base.first_step(self.spread(z), value, slope, self.spread(direction))

    def attachment(self, z: Tensor) -> float:
        """Mean over subjects of A/‖T‖² (of A itself in mesh units)."""
        template, p = self.base.split(self.spread(z))
        with torch.no_grad():
            shot = self.base.matching.shoot(p, mesh=template.repeat(self.base.count, 1))
            _, a = self.base.matching.terms(p, shot)
        return float((self.base.matching.attachment_weight * a).mean())
