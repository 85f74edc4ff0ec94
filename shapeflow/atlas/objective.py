"""The atlas energy: one unknown for the whole cohort.

    E(t, p) = mean_s [ γ H(t, p_s) / R_s² + A(φ_s(t), T_s) / ‖T_s‖² ],      z = [template t (n, d); momenta of every subject (S·n_c, d)]

All subjects shoot in one batch from the same template. E hardly changes when the template moves and every subject's
momenta take that back: a valley along which template and mean momentum creep. In the coordinates

    x = t + L p̄,  p_s          L p̄: how far the mean momentum moves the initial template, to first order

fitting and the valley are apart, so the initial inverse Hessian is block diagonal there: that of one matching, P
(`matching.precondition`), for every subject, and L_w P L_wᵀ for x, which moves as momenta of width w would move it,
as a surface. In the coordinates of E it is C diag(L_w P L_wᵀ, S·P, …, S·P) Cᵀ with C(x, p) = (x − L p̄, p): symmetric
and positive, as L-BFGS needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from shapeflow.matching.energy import MatchingObjective, Problem
from shapeflow.ops.bound import Kernel
from shapeflow.optimize import Minimum, Objective
from shapeflow.ragged import Ragged
from shapeflow.replay import Replay
from shapeflow.shape import Shape

Step = tuple[float, ...]  # of the history: a number a column


class AtlasObjective(Objective):
    """Template and momenta as one problem of optimisation. Masses and control points are those of the initial
    template, and stay. Without `energy`, E is the mean of A / ‖T‖² alone.
    """

    processes = 1
    columns = ("objective",)

    def __init__(
        self,
        template: Shape,
        subjects: Sequence[Shape],
        problems: Sequence[Problem],
        template_width: float,
        energy: bool = True,
    ) -> None:
        self.count, self.subjects = len(subjects), subjects
        self.matching = MatchingObjective(problems)
        if not energy:
            self.matching.energy_weight = torch.zeros_like(self.matching.energy_weight)
        self.n = len(template.points)
        self.rows = Ragged((0, self.n + self.matching.q0.shape[0]))
        self.cells = Ragged((0, self.n))
        like = self.matching.q0
        self.points = torch.as_tensor(template.points).to(like)
        self.template_width = torch.full((1,), template_width, dtype=like.dtype, device=like.device)
        self.replay = Replay(self.matching.attachment.waits())

    @cached_property
    def reach(self) -> _Reach:
        """L; only a search needs it."""
        return _Reach.of(self.matching, self.points, self.count)

    @cached_property
    def surface(self) -> _Reach:
        """L_w."""
        return self.reach.at_width(self.template_width)

    def start(self) -> Tensor:
        """The initial template, at rest."""
        return torch.cat([self.points, torch.zeros_like(self.matching.q0)])

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Template (n, d) and momenta (S·n_c, d)."""
        return z[: self.n], z[self.n :]

    def evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.replay(self._evaluate, z)
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
        p = self.count * self.matching.precondition(p - self._shared(template))
        x = self.template_step(template)
        return torch.cat([x - self.reach.push(p.view(self.count, -1, p.shape[1]).mean(0)), p])

    def template_step(self, template: Tensor) -> Tensor:
        """L_w P L_wᵀ (n, d)."""
        return self.surface.push(self.matching.hessian().typical(self.surface.pull(template)))

    def learn(self, s: Tensor, y: Tensor, accepted: Tensor) -> None:
        template, p = self.split(y)
        self.matching.learn(self.split(s)[1], p - self._shared(template), accepted.expand(self.count))

    def restart(self) -> None:
        self.matching.restart()
        self.replay = self.replay.again()

    def end_round(self, minimum: Minimum) -> tuple[list[Step], str]:
        """The steps of a round of iterations, and how it ended; `max_iter` where another may follow."""
        return [(value,) for value in minimum.history[0]], minimum.status[0]

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of this objective; the unknowns are not part of it."""
        return {}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Takes a `state`."""

    def finish(self, rows: Sequence[dict[str, Any]], z: Tensor) -> Sequence[dict[str, Any]]:
        """The subjects' rows at the unknowns z."""
        return rows

    def estimate(self) -> None:
        """What is estimated beside template and momenta."""

    def _shared(self, template: Tensor) -> Tensor:
        """What of the momenta's gradient (S·n_c, d) the template's (n, d) already says: Lᵀ of it, a subject's share."""
        return (self.reach.pull(template) / self.count).repeat(self.count, 1)

    def first_step(self, z: Tensor, value: Tensor, slope: Tensor, direction: Tensor) -> Tensor:
        template, p = self.split(direction)
        with torch.no_grad():
            v, _ = self.matching.metric.field(self.matching.q0, p)
        speed = (v.square().sum(1).mean().sqrt() + template.square().sum(1).mean().sqrt()).double()
        tiny = torch.finfo(speed.dtype).tiny
        farthest = 0.1 * self.matching.radius.mean() / speed.clamp(min=tiny)
        return torch.minimum(value / (-slope).clamp(min=tiny), farthest.cpu())


@dataclass(frozen=True)
class _Reach:
    """L = diag(after) K diag(before): momenta (n_c, d) to displacements (n, d) of the initial template."""

    kernel: Kernel
    points: Tensor
    cells: Ragged
    controls: Tensor
    rows: Ragged
    before: Tensor  # (n_c, 1)
    after: Tensor  # (n, 1)

    @staticmethod
    def of(matching: MatchingObjective, points: Tensor, count: int) -> _Reach:
        metric, n = matching.metric, len(matching.q0) // count
        controls, rows, cells = matching.q0[:n], Ragged((0, n)), Ragged((0, len(points)))
        kernel = Kernel(metric.kernel.radial, metric.kernel.sigma[:1], metric.kernel.backend)
        scale, masses = matching.hessian().scale, metric.masses[:n, None]
        if scale is None:
            return _Reach(
                kernel, points, cells, controls, rows, torch.ones_like(masses), torch.ones_like(points[:, :1])
            )
        before = scale[:n]
        return _Reach(
            kernel,
            points,
            cells,
            controls,
            rows,
            before,
            1 / kernel.product(points, cells, controls, rows, before * masses),
        )

    def at_width(self, width: Tensor) -> _Reach:
        """The same with another kernel width (1,), its rows having the sums they had."""
        other = replace(self, kernel=replace(self.kernel, sigma=width))
        ones = torch.ones_like(self.before)
        return replace(other, after=self.after * self.push(ones) / other.push(ones))

    def push(self, momenta: Tensor) -> Tensor:
        return self.after * self.kernel.product(
            self.points, self.cells, self.controls, self.rows, self.before * momenta
        )

    def pull(self, displacements: Tensor) -> Tensor:
        """Lᵀ."""
        return self.before * self.kernel.product(
            self.controls, self.rows, self.points, self.cells, self.after * displacements
        )
