"""The atlas energy: one unknown for the whole cohort.

    E(template, p) = mean_s [ γ H(q, p_s) / R_s² + A(φ_s(q), T_s) / ‖T_s‖² ],      z = [template (n, d); momenta of every subject (S·n_c, d)]

All subjects shoot in one batch from the same template. The initial inverse Hessian of the template's block is a
Gaussian smoothing (a Sobolev gradient): symmetric and positive, as L-BFGS needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shapeflow.matching.energy import MatchingObjective, Problem
from shapeflow.ops.bound import Kernel
from shapeflow.optimize import Objective
from shapeflow.ragged import Ragged
from shapeflow.replay import Replay
from shapeflow.shape import Shape
from shapeflow.warm import Warm


class AtlasObjective(Objective):
    """Template and momenta as one problem of optimisation. Masses and control points are those of the initial
    template, and stay.
    """

    def __init__(
        self, template: Shape, subjects: Sequence[Shape], problems: Sequence[Problem], template_width: float
    ) -> None:
        self.count, self.subjects = len(subjects), subjects
        self.matching = MatchingObjective(problems)
        self.n, d = template.points.shape
        self.rows = Ragged((0, self.n + self.matching.q0.shape[0]))
        self.cells = Ragged((0, self.n))
        like = self.matching.q0
        width = torch.full((1,), template_width, dtype=like.dtype, device=like.device)
        self.smoother = Kernel("gaussian", width, self.matching.spec.resolved_backend())
        self.points = torch.as_tensor(template.points).to(like)
        self.template_scale = 1.0
        self.replay = Replay(self._evaluate)

    def start(self) -> Tensor:
        """The initial template, at rest."""
        return torch.cat([self.points, torch.zeros_like(self.matching.q0)])

    def forget(self) -> None:
        """Guesses from earlier evaluations are dropped: what follows depends on its arguments alone, to the last bit."""
        self.matching.warm, self.replay = Warm(), Replay(self._evaluate)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Template (n, d) and momenta (S·n_c, d)."""
        return z[: self.n], z[self.n :]

    def evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.replay(z)
        self.matching.warm.report()
        return value, gradient

    def _evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            template, p = self.split(z)
            shot = self.matching.shoot(p, mesh=template.repeat(self.count, 1), warm=self.matching.warm)
            value = self.matching.total(*self.matching.terms(p, shot)).mean()
            (gradient,) = torch.autograd.grad(value, z)
        return value.detach()[None], gradient

    def select(self, problems: Sequence[int]) -> AtlasObjective:
        return self

    def noise(self, value: Tensor) -> Tensor:
        return self.matching.noise(value).mean()[None]

    def precondition(self, gradient: Tensor) -> Tensor:
        template, p = self.split(gradient)
        smooth = self.smoother.product(self.points, self.cells, self.points, self.cells, template)
        return torch.cat([self.template_scale * smooth, self.matching.precondition(p)])

    def learn(self, s: Tensor, y: Tensor, accepted: Tensor) -> None:
        self.matching.learn(self.split(s)[1], self.split(y)[1], accepted.expand(self.count))

    def restart(self) -> None:
        self.matching.restart()

    def balance(self, gradient: Tensor) -> None:
        """Weigh the two blocks so that a first step moves the template as far as it moves the subjects' points."""
        self.restart()  # what an earlier round has learnt would not be there after an interruption
        self.template_scale = 1.0
        template, p = self.split(self.precondition(gradient))
        with torch.no_grad():
            v, _ = self.matching.metric.field(self.matching.q0, p)
        moved, speed = template.square().mean().sqrt(), v.square().mean().sqrt()
        self.template_scale = float(speed / moved) if moved > 0 and speed > 0 else 1.0

    def first_step(self, z: Tensor, value: Tensor, slope: Tensor, direction: Tensor) -> Tensor:
        template, p = self.split(direction)
        with torch.no_grad():
            v, _ = self.matching.metric.field(self.matching.q0, p)
        speed = (v.square().sum(1).mean().sqrt() + template.square().sum(1).mean().sqrt()).double()
        tiny = torch.finfo(speed.dtype).tiny
        farthest = 0.1 * self.matching.radius.mean() / speed.clamp(min=tiny)
        return torch.minimum(value / (-slope).clamp(min=tiny), farthest.cpu())
