"""The energy of a batch of matchings and its gradient.

    E_b(p₀) = γ · H(q₀, p₀) / R² + w · A(q(1), target) / ‖T‖²            (units = relative; R² and ‖T‖² are 1 in mesh units)

H costs nothing beside the shooting: it is ½⟨p₀, v(0)⟩, and v(0) is the first velocity the integrator needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from shapeflow.attachment import Attachment, Landmarks, compare
from shapeflow.batch import ShapeBatch
from shapeflow.matching.control import control_points
from shapeflow.matching.curvature import stiffness
from shapeflow.matching.precondition import InverseHessian
from shapeflow.matching.spec import MatchingSpec
from shapeflow.metric import Metric, metric
from shapeflow.ops import Radial
from shapeflow.ops.bound import Kernel
from shapeflow.optimize import Objective
from shapeflow.ragged import Ragged
from shapeflow.replay import Replay
from shapeflow.shape import Shape
from shapeflow.shooting import Carried, Shot, shoot
from shapeflow.warm import Warm


@dataclass(frozen=True)
class Problem:
    """One matching. Landmarks are points (l, d) of source and target that correspond; they are carried, and compared
    by attachment=landmarks.
    """

    source: Shape
    target: Shape
    spec: MatchingSpec
    source_landmarks: np.ndarray | None = None
    target_landmarks: np.ndarray | None = None

    def compares_landmarks(self) -> bool:
        return (
            self.spec.attachment == "landmarks"
            and self.source_landmarks is not None
            and self.target_landmarks is not None
        )


class MatchingObjective(Objective):
    """E and ∇E for a batch of problems whose specs differ in widths and weights only."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        spec = self.spec = self.problems[0].spec
        dtype, device = spec.torch_dtype(), spec.torch_device()

        def per_problem(values: Sequence[float], dtype: torch.dtype = dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        self.source = ShapeBatch.of([p.source for p in problems], dtype, device)
        target = ShapeBatch.of([p.target for p in problems], dtype, device)
        controls = [control_points(p.source, p.spec) for p in problems]
        self.on_vertices = controls[0] is None
        self.q0, self.rows, masses = (
            (self.source.points, self.source.rows, self.source.masses)
            if self.on_vertices
            else _controls(controls, dtype, device)
        )
        backend = spec.resolved_backend()
        kernel = Kernel(str(Radial.parse(spec.kernel)), per_problem([p.spec.sigma for p in problems]), backend)
        self.metric: Metric = metric(kernel, self.rows, masses, spec.scaling())
        self.landmarks = _landmark_points(problems, dtype, device) if problems[0].compares_landmarks() else None
        widths = per_problem([p.spec.attachment_widths[0] for p in problems])
        self.attachment = self._attachment(
            target, Kernel(str(spec.attachment_radial()), widths, backend), dtype, device
        )
        relative = spec.units == "relative"
        square, reference = target.mean_square_radius().double(), self.attachment.reference()
        gamma, weight = (
            per_problem([getattr(p.spec, name) for p in problems], torch.float64)
            for name in ("gamma", "attachment_weight")
        )
        self.energy_weight, self.attachment_weight = (
            (gamma / square, weight / reference) if relative else (gamma, weight)
        )
        self.radius = square.sqrt()
        self._inverse: InverseHessian | None = None
        self.warm, self.replay = Warm(), Replay(self.attachment.waits())
        # What is left of A when its terms cancel: the rounding of every simplex, independent of the others (measured: within a factor of two).
        count = per_problem([len(p.source.simplices) for p in problems], torch.float64)
        self.rounding = 2 * torch.finfo(dtype).eps * self.attachment_weight * reference / count.sqrt()

    def _attachment(self, target: ShapeBatch, kernel: Kernel, dtype: torch.dtype, device: torch.device) -> Attachment:
        if self.spec.attachment != "landmarks":
            spec = self.spec
            return compare(
                spec.attachment,
                kernel,
                self.source,
                target,
                kappa=spec.attachment_kappa,
                reach=spec.attachment_reach,
                normal_length=spec.attachment_normal_length,
            )
        if self.landmarks is None:
            return Landmarks.between(self.source, target)
        points = ShapeBatch.of(
            [Shape(p.target_landmarks) for p in self.problems if p.target_landmarks is not None], dtype, device
        )
        return Landmarks.between(replace(points, rows=self.landmarks.rows), points)

    def shoot(
        self, p: Tensor, carried: tuple[Carried, ...] = (), mesh: Tensor | None = None, warm: Warm | None = None
    ) -> Shot:
        """The geodesic of momenta p, from the sources' points or from others in their place, `mesh` (N, d).

        Carried points come back with the mesh first, if momenta do not live on it, and the compared landmarks next.
        """
        points = self.source.points if mesh is None else mesh
        q0 = points if self.on_vertices else self.q0
        return shoot(
            self.metric,
            q0,
            p,
            steps=self.spec.steps,
            integrator=self.spec.integrator,
            carried=(*self._passengers(points), *carried),
            warm=warm,
        )

    def _passengers(self, points: Tensor) -> tuple[Carried, ...]:
        mesh = () if self.on_vertices else (Carried(points, self.source.rows),)
        return (*mesh, self.landmarks) if self.landmarks is not None else mesh

    def deformed(self, shot: Shot) -> Tensor:
        """The mesh's points at time 1."""
        return shot.q if self.on_vertices else shot.carried[0]

    def terms(self, p: Tensor, shot: Shot) -> tuple[Tensor, Tensor]:
        """(H, A), each (B,) float64, in mesh units."""
        energy = 0.5 * self.rows.sum((p.double() * shot.velocity.double()).sum(1))
        compared = self.deformed(shot) if self.landmarks is None else shot.carried[0 if self.on_vertices else 1]
        return energy, self.attachment(compared)

    def total(self, energy: Tensor, attachment: Tensor) -> Tensor:
        return self.energy_weight * energy + self.attachment_weight * attachment

    def evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.replay(self._evaluate, z)
        self.warm.report()
        return value, gradient

    def _evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing here waits for a device: on CUDA this is recorded once and replayed."""
        p = z.detach().requires_grad_()
        with torch.enable_grad():
            value = self.total(*self.terms(p, self.shoot(p, warm=self.warm)))
            (gradient,) = torch.autograd.grad(value.sum(), p)
        return value.detach(), gradient

    def select(self, problems: Sequence[int]) -> MatchingObjective:
        kept = MatchingObjective([self.problems[b] for b in problems])
        # so that a problem's result does not depend on its batch
        kept.warm, kept.replay = self.warm.select(self.rows.select(problems)[1]), self.replay.again()
        kept._inverse = None if self._inverse is None else self._inverse.select(problems, kept.metric, kept.q0)
        return kept

    def noise(self, value: Tensor) -> Tensor:
        return self.rounding + torch.finfo(self.q0.dtype).eps * value.abs().to(self.rounding)

    def precondition(self, gradient: Tensor) -> Tensor:
        """The inverse of a model of the Hessian (see `precondition.py`)."""
        return self.hessian()(gradient)

    def learn(self, s: Tensor, y: Tensor, accepted: Tensor) -> None:
        self.hessian().learn(s, y, accepted)

    def restart(self) -> None:
        """What follows depends on its arguments alone, to the last bit."""
        self.warm, self.replay = Warm(), self.replay.again()
        if self._inverse is not None:
            self._inverse.restart()

    def hessian(self) -> InverseHessian:
        """Made when first needed."""
        if self._inverse is None:
            # sources that are one object have one factor, if their widths are the same
            keys = [
                (id(p.source), id(p.source_landmarks), p.spec.sigma, p.spec.attachment_widths) for p in self.problems
            ]
            compared = self.source.points if self.landmarks is None else self.landmarks.points
            self._inverse = InverseHessian(
                self.metric, self.q0, keys, lambda b, basis: stiffness(self.attachment, b, compared, basis)
            )
        return self._inverse

    def first_step(self, z: Tensor, value: Tensor, slope: Tensor, direction: Tensor) -> Tensor:
        """Half way to the minimum of a quadratic that reaches zero, but no farther than a tenth of the shape's
        radius.
        """
        with torch.no_grad():
            v, _ = self.metric.field(self.q0, direction)
            speed = self.rows.mean(v.square().sum(1)).sqrt().double()
        tiny = torch.finfo(speed.dtype).tiny
        return torch.minimum(value / (-slope).clamp(min=tiny), (0.1 * self.radius / speed.clamp(min=tiny)).cpu())


def _controls(controls, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Ragged, Tensor]:
    rows = Ragged.of_sizes(map(len, controls))
    points = torch.as_tensor(np.concatenate(controls), dtype=dtype, device=device)
    shares = np.concatenate([np.full(len(c), 1 / len(c)) for c in controls])
    return points, rows, torch.as_tensor(shares, dtype=dtype, device=device)


def _landmark_points(problems: Sequence[Problem], dtype: torch.dtype, device: torch.device) -> Carried:
    points = [p.source_landmarks for p in problems if p.source_landmarks is not None]
    return Carried(
        torch.as_tensor(np.concatenate(points), dtype=dtype, device=device), Ragged.of_sizes(map(len, points))
    )
